//! Storing: a blob to slivers on the nodes, their confirmations to a certificate, and that to the ledger.
//!
//! The bytes are read twice. The first pass ([`identify`]) finds the blob ID, on which the place of every sliver
//! depends; the second ([`upload`]) encodes again and sends, a few segments at a time, while the ledger registers the blob;
//! [`certify`] turns signatures into the point of availability. [`terms`] decides what there is to do, [`state`] who is
//! waited for, [`lane`] is the way to one member, [`resend`] serves those that lack what went out. When the epoch ends meanwhile,
//! [`carry`] goes on under the next committee, with [`holdings`] to send nothing twice.
//!
//! A blob whose part for each member fits into one message is sent with the order to register it, and registered and
//! certified by one transaction: one round trip and one block.

mod carry;
mod certify;
mod holdings;
mod identify;
mod lane;
mod resend;
mod state;
mod terms;
mod upload;

use std::{io, sync::Arc, time::Duration};

use protocol::{
    AccountId, BlobId, Epoch, NodeIndex, RegistrationId,
    certificate::Persistence,
    commitment::VerifiedHeader,
    encoding::{BlobShape, ShapeError},
    ledger::{
        signature::SigningKey,
        state::{entry::Head, key},
        transaction::Action,
    },
};
use swarm::Network;
use tokio::time::Instant;

use self::{
    certify::is_superseded,
    identify::{Identified, Segments},
    terms::{Course, Facts, course},
    upload::Upload,
};
use super::{
    BlobSource, Client, ClientConfig, LedgerError, OnProgress, Progress, StoreOptions, SubmitError,
    ledger::{Values, decode, require},
};
use crate::encoder::Encoder;

/// How often storing begins anew because another program used the same account at the same moment, or since what was agreed
/// with the ledger in one epoch came to nothing in the next. An epoch that ends is else no reason to.
const ATTEMPTS: usize = 4;
/// Steps of one attempt: to have it certified, to have it hold longer, and one to see that it does.
const STEPS: usize = 4;

/// A blob that was stored.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its ID.
    pub blob_id: BlobId,
    /// Bytes of the blob.
    pub size: u64,
    /// Bytes of its slivers over all shards.
    pub encoded_size: u64,
    /// The first epoch in which the registration no longer holds.
    pub end: Epoch,
    /// Weight in shards of the members that confirmed; 0 if the blob was certified before.
    pub confirmed: u16,
    /// Those members, ascending.
    pub signers: Vec<NodeIndex>,
    /// The epoch on whose committee they are.
    pub epoch: Epoch,
    /// True if the owner's registration was certified before, and nothing was sent.
    pub already_certified: bool,
    /// Time to the point of availability.
    pub duration: Duration,
    /// When each step on the way to it was done.
    pub timings: Timings,
}

/// When each step was done, since the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// The blob ID was known.
    pub identified: Duration,
    /// The ledger had said what there is of the blob: one round trip.
    pub looked_up: Duration,
    /// The ledger had executed the registration, if that was not ordered together with the certificate: one block.
    pub registered: Option<Duration>,
    /// Members worth a quorum had confirmed: one round trip, if all that each is sent fits into one message.
    pub confirmed: Duration,
    /// The ledger had executed the certificate: one block.
    pub certified: Duration,
}

impl Stored {
    /// What there is to say of a blob before anything was done.
    fn of(header: &VerifiedHeader) -> Self {
        Self {
            blob_id: header.blob_id(),
            size: header.shape().length(),
            encoded_size: header.shape().encoded_bytes(),
            end: Epoch(0),
            confirmed: 0,
            signers: Vec::new(),
            epoch: Epoch(0),
            already_certified: true,
            duration: Duration::ZERO,
            timings: Timings::default(),
        }
    }
}

/// What is agreed with the ledger about one registration.
#[derive(Clone, Debug)]
struct Deal {
    header: VerifiedHeader,
    key: SigningKey,
    registration: RegistrationId,
    persistence: Persistence,
    end: Epoch,
}

impl Deal {
    /// Keys of what the ledger says about it; [`Facts::read`] reads their values.
    fn keys(&self) -> Vec<Vec<u8>> {
        facts_keys(&self.header.blob_id(), &self.registration.owner)
    }
}

fn facts_keys(blob_id: &BlobId, owner: &AccountId) -> Vec<Vec<u8>> {
    vec![key::head(), key::account(owner), key::blob(blob_id), key::registration(blob_id, owner)]
}

impl Facts {
    fn read(values: &Values) -> Result<Self, LedgerError> {
        let value = |i: usize| values.get(i).and_then(Option::as_deref);
        Ok(Self {
            head: require::<Head>("the head", value(0))?,
            account: value(1).map(|value| decode("an account", value)).transpose()?.unwrap_or_default(),
            blob: value(2).map(|value| decode("a blob", value)).transpose()?,
            registration: value(3).map(|value| decode("a registration", value)).transpose()?,
        })
    }
}

/// Why a blob was not stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The blob cannot be encoded for this network.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The bytes of the blob could not be read.
    #[error("cannot read the blob")]
    Source(#[source] io::Error),
    /// The bytes changed between the two passes over them.
    #[error("the file changed while it was being stored; nothing was stored")]
    Changed,
    /// The blob was proved to be encoded wrongly.
    #[error("a blob with this ID was certified as encoded wrongly")]
    Invalid,
    /// Too few members confirmed. The blob is not stored; what they hold is dropped in time.
    #[error("only members with {got} of the {required} shards needed can take the blob; {reasons}")]
    TooFewConfirmations {
        /// Weight in shards of the members that confirmed, or could have when it became clear that too few would.
        got: u16,
        /// Weight needed.
        required: u16,
        /// What the others said, one clause a member.
        reasons: String,
    },
    /// It is not known what the ledger says of the blob. Unless it was being certified, nothing was sent.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The ledger did not take a transaction, or is not known to have. Storing the blob again settles it.
    #[error(transparent)]
    Submit(SubmitError),
    /// Another program used the account at the same moment, so that the registration that nodes confirmed was not made.
    #[error("another program used the same account at the same moment")]
    Superseded,
    /// The blob is registered on weaker terms.
    #[error(
        "you have registered this blob as deletable up to epoch {end}; delete it before you store it as permanent"
    )]
    Deletable {
        /// The blob.
        blob_id: BlobId,
        /// The end of the registration.
        end: Epoch,
    },
    /// This client is stopping.
    #[error("the client has stopped")]
    Stopped,
}

impl<N: Network> Client<N> {
    /// Stores a blob for the account of `key` and returns after its point of availability: when the ledger is proven to have
    /// its certificate. Uploads to slower nodes go on for a short tail within this call.
    ///
    /// What the account has stored before is not sent again, and holds longer if that is asked for.
    ///
    /// Cancel safe: yes; the blob may have been stored, and storing it again settles it.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn store(
        &self,
        source: Arc<dyn BlobSource>,
        key: &SigningKey,
        options: StoreOptions,
        progress: OnProgress,
    ) -> Result<Stored, StoreError> {
        let started = Instant::now();
        self.exchange.use_now();
        let shape = BlobShape::new(self.exchange.genesis().n_shards(), source.len())?;
        let segments = Segments::new(self.encoder.clone(), source, shape);
        let mut attempt = 1;
        loop {
            let identified = segments.identify(self.config.segments_in_flight.max(1), &progress).await?;
            progress(Progress::Identified(identified.header.blob_id()));
            let timings = Timings { identified: started.elapsed(), ..Timings::default() };
            let job = Job { segments: segments.clone(), progress: Arc::clone(&progress), started, timings };
            let epoch = self.ledger.trusted().epoch();
            match Box::pin(self.store_identified(job, identified, (key, options))).await {
                Err(error) if attempt < ATTEMPTS && self.may_begin_anew(&error, epoch) => {
                    tracing::info!(attempt, %error, "storing begins anew");
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    /// True if the same may go well when it begins anew: with another nonce, or with what the ledger says in the epoch that
    /// has begun since.
    fn may_begin_anew(&self, error: &StoreError, since: Epoch) -> bool {
        let has_moved = self.ledger.trusted().epoch() > since;
        let is_refused = matches!(error, StoreError::Submit(_) | StoreError::TooFewConfirmations { .. });
        is_superseded(error) || (has_moved && is_refused)
    }

    async fn store_identified(
        &self,
        job: Job,
        identified: Identified,
        (key, options): (&SigningKey, StoreOptions),
    ) -> Result<Stored, StoreError> {
        let header = identified.header;
        let (blob_id, owner) = (header.blob_id(), key.account());
        let deal = |nonce, end| Deal {
            header,
            key: key.clone(),
            registration: RegistrationId { owner, nonce },
            persistence: options.persistence,
            end,
        };
        let started = job.started;
        let mut stored = Stored { timings: job.timings, ..Stored::of(&header) };
        // Taken by the upload, which comes first if there is one.
        let mut upload = Some((job, identified));
        for _ in 0..STEPS {
            let turn = self.turn(owner).await;
            let facts = self.facts(&blob_id, &owner).await?;
            if let Some((job, _)) = &mut upload {
                job.timings.looked_up = started.elapsed();
                stored.timings = job.timings;
            }
            let step = course(blob_id, &facts, options)?;
            let is_available = facts.blob.is_some_and(|blob| blob.available.is_some());
            match (step, upload.take()) {
                (Course::Stored(end), _) => {
                    if stored.already_certified {
                        stored.duration = started.elapsed();
                    }
                    return Ok(Stored { end, ..stored });
                }
                (Course::Extend(end_epoch), taken) => {
                    upload = taken;
                    let action = Action::ExtendBlob { blob_id, end_epoch };
                    let nonce = facts.account.nonce;
                    let extended = self.submit_at(nonce, action, (key, &turn), &[]).await;
                    extended.map_err(StoreError::Submit)?;
                }
                (Course::Confirm { nonce }, Some((job, identified))) => {
                    drop(turn);
                    let end = facts.registration.map_or(Epoch(0), |registration| registration.end);
                    let deal = deal(nonce, end);
                    let upload = Upload::new(self.clone(), job, identified, (deal, None, is_available));
                    stored = Box::pin(upload.run()).await?;
                }
                (Course::Register { nonce, end }, Some((job, identified))) => {
                    let deal = deal(nonce, end);
                    let turn = Some(turn);
                    let upload = Upload::new(self.clone(), job, identified, (deal, turn, is_available));
                    stored = Box::pin(upload.run()).await?;
                    return Ok(Stored { end, ..stored });
                }
                // It was certified a moment ago, and is gone: somebody else deletes what this one stores.
                (Course::Confirm { .. } | Course::Register { .. }, None) => {
                    return Err(StoreError::Superseded);
                }
            }
        }
        Err(StoreError::Superseded)
    }

    /// What the ledger says of a blob and of one who stores it.
    async fn facts(&self, blob_id: &BlobId, owner: &AccountId) -> Result<Facts, StoreError> {
        let proven = self.ledger_entries(&facts_keys(blob_id, owner)).await?;
        Ok(Facts::read(&proven.value)?)
    }
}

/// One blob to be stored.
struct Job {
    segments: Segments,
    progress: OnProgress,
    started: Instant,
    timings: Timings,
}

/// Computes the blob ID of `source` on a network of `n_shards` shards; needs no network.
///
/// Cancel safe: yes.
///
/// # Errors
///
/// [`StoreError::Shape`], [`StoreError::Source`] and [`StoreError::Stopped`].
pub async fn blob_id(
    encoder: &Encoder,
    source: Arc<dyn BlobSource>,
    n_shards: u16,
    progress: OnProgress,
) -> Result<BlobId, StoreError> {
    let shape = BlobShape::new(n_shards, source.len())?;
    let segments = Segments::new(encoder.clone(), source, shape);
    let identified = segments.identify(ClientConfig::default().segments_in_flight, &progress).await?;
    Ok(identified.header.blob_id())
}
