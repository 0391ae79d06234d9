//! The state that a network begins with.

use std::sync::Arc;

use super::{
    Corrupt, State,
    entry::{Account, Head, Node, NodeStatus, Stage},
    pool::Pool,
    slot::{AccountSlot, BlsKey, DelegationSlot, HeadSlot, KeySlot, NameSlot, NodeSlot, ParametersSlot},
    store::Store,
};
use crate::{
    committee::Member,
    genesis::{Genesis, GenesisStake},
    hash::NODE_NAME,
    ids::{AccountId, PeerId},
    ledger::transaction::NodeDescription,
};

impl State {
    /// The state at height 0. Members of the first committee are registered nodes, each operated by the account of its
    /// own key, without commission.
    ///
    /// # Errors
    ///
    /// If the state contradicts itself, which a verified genesis rules out.
    pub fn genesis(genesis: &Genesis) -> Result<Self, Corrupt> {
        let committee = Arc::new(genesis.committee().clone());
        let mut state = Self {
            store: Store::default(),
            committee: Arc::clone(&committee),
            previous: None,
            next: None,
            begins_epoch: false,
        };
        let head = Head {
            network: genesis.network_id(),
            n_shards: genesis.n_shards(),
            height: 0,
            time_ms: 0,
            epoch: committee.epoch(),
            epoch_started_ms: 0,
            stage: Stage::Steady,
            n_available: 0,
        };
        let endowment = genesis.endowment();
        state.store.set(&HeadSlot {}, &head);
        state.store.set(&ParametersSlot {}, &endowment.parameters);
        for account in &endowment.accounts {
            let slot = AccountSlot { account: account.account };
            state.store.set(&slot, &Account { balance: account.balance, ..Account::default() });
        }
        for member in committee.members() {
            state.add_member(member);
        }
        state.write_members(&committee);
        for GenesisStake { node, account, amount } in &endowment.stakes {
            state.add_stake(*node, *account, *amount)?;
        }
        Ok(state)
    }

    fn add_member(&mut self, member: &Member) {
        let node = member.peer;
        let description = NodeDescription {
            name: member.name.clone(),
            public_key: member.public_key,
            proof_of_possession: member.proof_of_possession,
            addresses: member.addresses.clone(),
            operator: AccountId::from(node),
            commission_bp: 0,
            capacity_bytes: 0,
        };
        self.store.set(&NameSlot { name: NODE_NAME.hash(member.name.as_bytes()) }, &node);
        self.store.set(&KeySlot { key: BlsKey(member.public_key.to_bytes()) }, &node);
        let (status, stake) = (NodeStatus::Active, Pool::default());
        let entry = Node { description, status, stake, ballot: None, commission_bp: 0 };
        self.store.set(&NodeSlot { node }, &entry);
    }

    fn add_stake(&mut self, node: PeerId, account: AccountId, amount: u64) -> Result<(), Corrupt> {
        let slot = NodeSlot { node };
        let mut entry: Node = self.store.require(&slot)?;
        let shares = entry.stake.put_exactly(amount).ok_or(Corrupt::Sum { what: "stakes of the genesis" })?;
        self.store.set(&slot, &entry);
        self.store.set(&DelegationSlot { node, account }, &shares);
        Ok(())
    }
}
