//! The report as one page of HTML that needs nothing else.

use std::fmt::Write as _;

use node::cli::{Exit, Failure, output::Bytes};
use plotters::{
    prelude::{
        BLACK, BLUE, ChartBuilder, Color as _, IntoDrawingArea as _, IntoFont as _, LineSeries, PathElement,
        RED, RGBColor, Rectangle, SVGBackend, SeriesLabelPosition, WHITE,
    },
    style::FontStyle,
};

use super::{
    fault::Kind,
    report::{DeedRow, Report},
};

/// Pixels of a plot.
const SIZE: (u32, u32) = (1100, 260);
const GREEN: RGBColor = RGBColor(0, 130, 70);
const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:1120px;margin:2em auto;padding:0 1em;color:#222}\
    table{border-collapse:collapse}td,th{padding:.2em .8em;border-bottom:1px solid #ddd;text-align:right}\
    td:first-child,th:first-child{text-align:left}.ok{color:#007a3d}.bad{color:#b00020}svg{max-width:100%;height:auto}\
    .key span{padding:.1em .6em;margin-right:.4em;border-radius:3px}code{background:#f3f3f3}";

/// One line of a plot.
struct Line {
    name: &'static str,
    color: RGBColor,
    points: Vec<(f64, f64)>,
}

/// The color in which a fault is marked.
const fn color(kind: Kind) -> RGBColor {
    match kind {
        Kind::Kill | Kind::Outage => RGBColor(214, 39, 40),
        Kind::Restart => RGBColor(255, 152, 150),
        Kind::Stop => RGBColor(255, 127, 14),
        Kind::Wipe => RGBColor(148, 103, 189),
        Kind::Corrupt => RGBColor(227, 119, 194),
        Kind::Fill => RGBColor(140, 86, 75),
        Kind::Cut | Kind::Split | Kind::Majority => RGBColor(31, 119, 180),
        Kind::Delay | Kind::Lose => RGBColor(127, 127, 127),
        Kind::Skew => RGBColor(188, 189, 34),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The page.
///
/// # Errors
///
/// If a plot cannot be drawn, which is a bug.
pub fn page(report: &Report) -> Result<String, Failure> {
    let mut html = String::new();
    write(report, &mut html)
        .map_err(|error| Failure::because(Exit::Other, "cannot draw the report", &*error))?;
    Ok(html)
}

/// What drawing comes to.
type Drawn = Result<(), Box<dyn std::error::Error + Send + Sync>>;

fn write(report: &Report, html: &mut String) -> Drawn {
    let setting = &report.setting;
    let (class, verdict) = match report.first_broken {
        None => ("ok", "every promise was kept".to_owned()),
        Some(promise) => ("bad", format!("{promise} was broken")),
    };
    write!(
        html,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Floe under chaos, seed {seed}</title>\
         <style>{STYLE}</style><h1>Floe under chaos: <span class=\"{class}\">{verdict}</span></h1>\
         <p>{faults} faults in {seconds:.0} s on {nodes} nodes with {shards} shards ({target}), of which {f} may be faulty. \
         Again: <code>floe-testnet chaos --target {target} --seed {seed} --duration {duration:.0}s</code></p>",
        seed = setting.seed,
        faults = report.faults,
        seconds = report.seconds,
        nodes = setting.nodes,
        shards = setting.n_shards,
        target = escaped(&setting.target),
        f = setting.max_faulty,
        duration = setting.duration_seconds,
    )?;
    let healthy = report.seconds_to_healthy.map_or_else(|| "not in time".to_owned(), |s| format!("{s:.1} s"));
    write!(html, "<table>")?;
    for (name, value) in [
        ("operations", report.operations.to_string()),
        ("failed", format!("{} ({} refused for want of nodes)", report.failed, report.refused)),
        ("blobs to be there at the end", report.blobs.to_string()),
        ("lost blobs", report.lost_blobs.to_string()),
        ("wrong reads", report.wrong_reads.to_string()),
        ("panics", report.panics.to_string()),
        ("all nodes healthy after the last fault", healthy),
        ("most memory that a node held", Bytes(report.memory_peak_bytes).to_string()),
        ("repair: bytes received", report.repair_bytes_received.to_string()),
        ("repair: bytes regained", report.repair_bytes_regained.to_string()),
    ] {
        write!(html, "<tr><td>{name}<td>{value}")?;
    }
    write!(html, "</table>")?;
    if !report.broken.is_empty() {
        write!(html, "<h2>Broken promises</h2><ol>")?;
        for broken in &report.broken {
            let (at, what) = (broken.at.as_secs_f64(), escaped(&broken.what));
            write!(html, "<li class=\"bad\">{} at {at:.1} s: {what}", broken.promise)?;
        }
        write!(html, "</ol>")?;
    }
    plots(report, html)?;
    tables(report, html)?;
    Ok(())
}

fn plots(report: &Report, html: &mut String) -> Drawn {
    write!(html, "<h2>Over time</h2><p class=\"key\">Faults: ")?;
    for kind in Kind::ALL.into_iter().filter(|kind| report.timeline.iter().any(|row| row.kind == *kind)) {
        let RGBColor(r, g, b) = color(kind);
        write!(html, "<span style=\"background:rgba({r},{g},{b},.35)\">{kind}</span>")?;
    }
    write!(html, "</p>")?;
    let count = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    let mebibytes = |bytes: u64| f64::from(u32::try_from(bytes >> 10).unwrap_or(u32::MAX)) / 1024.0;
    let line = |name, color, points: Vec<(f64, f64)>| Line { name, color, points };
    let buckets = || report.buckets.iter();
    let samples = || report.samples.iter();
    let busy = || buckets().filter(|bucket| bucket.operations > 0);
    for (title, unit, lines) in [
        (
            "Operations in 5 s",
            "operations",
            vec![
                line("all", BLUE, buckets().map(|it| (it.at_seconds, count(it.operations))).collect()),
                line("failed", RED, buckets().map(|it| (it.at_seconds, count(it.failed))).collect()),
            ],
        ),
        (
            "Latency, in seconds",
            "s",
            vec![
                line("median", BLUE, busy().map(|it| (it.at_seconds, it.p50_ms / 1e3)).collect()),
                line("99th percentile", RED, busy().map(|it| (it.at_seconds, it.p99_ms / 1e3)).collect()),
            ],
        ),
        (
            "Repair, in MiB",
            "MiB",
            vec![
                line(
                    "received",
                    BLUE,
                    samples().map(|it| (it.at_seconds, mebibytes(it.repair_bytes_received))).collect(),
                ),
                line(
                    "regained: what was lost",
                    GREEN,
                    samples().map(|it| (it.at_seconds, mebibytes(it.repair_bytes_regained))).collect(),
                ),
            ],
        ),
        (
            "Nodes",
            "nodes",
            vec![
                line("answer", BLUE, samples().map(|it| (it.at_seconds, count(it.reachable))).collect()),
                line("are healthy", GREEN, samples().map(|it| (it.at_seconds, count(it.well))).collect()),
            ],
        ),
        (
            "Memory, in MiB",
            "MiB",
            vec![line(
                "of the node that holds most",
                BLUE,
                samples().map(|it| (it.at_seconds, mebibytes(it.memory_bytes))).collect(),
            )],
        ),
        (
            "Epochs",
            "epoch",
            vec![line("epoch", BLACK, samples().map(|it| (it.at_seconds, f64::from(it.epoch))).collect())],
        ),
    ] {
        plot(report, (title, unit), &lines, html)?;
    }
    Ok(())
}

/// Draws lines over bands for the faults.
fn plot(report: &Report, (title, unit): (&str, &str), lines: &[Line], html: &mut String) -> Drawn {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let points = || lines.iter().flat_map(|line| &line.points);
        let width = points().map(|(x, _)| *x).fold(1.0, f64::max);
        let height = 1.05 * points().map(|(_, y)| *y).fold(1.0, f64::max);
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 16).into_font().style(FontStyle::Bold))
            .margin(8)
            .x_label_area_size(30)
            .y_label_area_size(55)
            .build_cartesian_2d(0.0..width, 0.0..height)?;
        chart.configure_mesh().x_desc("seconds").y_desc(unit).light_line_style(WHITE).draw()?;
        for row in &report.timeline {
            let end = row.ended_seconds.unwrap_or(width).min(width);
            let band =
                Rectangle::new([(row.began_seconds, 0.0), (end, height)], color(row.kind).mix(0.2).filled());
            chart.draw_series(std::iter::once(band))?;
        }
        for line in lines {
            let color = line.color;
            chart
                .draw_series(LineSeries::new(line.points.iter().copied(), color.stroke_width(2)))?
                .label(line.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.2))
            .draw()?;
        area.present()?;
    }
    html.push_str(&svg);
    Ok(())
}

fn tables(report: &Report, html: &mut String) -> Drawn {
    write!(
        html,
        "<h2>Operations</h2><table><tr><th>operation<th>undisturbed<th>p50 ms<th>p99 ms<th>in faults<th>p50 ms<th>p99 ms<th>failed"
    )?;
    for (name, DeedRow { undisturbed, disturbed, failed }) in &report.by_kind {
        write!(
            html,
            "<tr><td>{name}<td>{}<td>{:.0}<td>{:.0}<td>{}<td>{:.0}<td>{:.0}<td>{failed}",
            undisturbed.operations,
            undisturbed.p50_ms,
            undisturbed.p99_ms,
            disturbed.operations,
            disturbed.p50_ms,
            disturbed.p99_ms,
        )?;
    }
    write!(html, "</table>")?;
    if !report.reasons.is_empty() {
        write!(html, "<h2>Why operations failed</h2><ul>")?;
        for (why, n) in &report.reasons {
            write!(html, "<li>{n}: {}", escaped(why))?;
        }
        write!(html, "</ul>")?;
    }
    write!(html, "<h2>Faults</h2><table><tr><th>fault<th>planned, s<th>began, s<th>ended, s")?;
    for row in &report.timeline {
        let ended = row.ended_seconds.map_or_else(String::new, |ended| format!("{ended:.1}"));
        let what = escaped(&row.what);
        write!(html, "<tr><td>{what}<td>{:.1}<td>{:.1}<td>{ended}", row.planned_seconds, row.began_seconds)?;
    }
    write!(html, "</table>")?;
    for what in &report.skipped {
        write!(html, "<p>Left out: {}", escaped(what))?;
    }
    html.push_str("</html>\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::{
            checker::Broken,
            fault::Fault,
            report::{Bucket, FaultRow, Sample},
        },
        *,
    };

    #[test]
    fn a_page_holds_the_verdict_the_plots_and_every_fault_and_fetches_nothing() {
        let faults = Kind::ALL.map(|kind| Fault {
            kind,
            nodes: vec![1],
            at: Duration::from_secs(3),
            lasts: Duration::from_secs(5),
            strength: 7,
        });
        let mut report = Report {
            timeline: faults.iter().map(|fault| FaultRow::new(fault, Duration::from_secs(4))).collect(),
            buckets: (0..9)
                .map(|n| Bucket { at_seconds: f64::from(n), operations: 3, ..Bucket::default() })
                .collect(),
            samples: (0..9)
                .map(|n| Sample { at_seconds: f64::from(n), well: 7, ..Sample::default() })
                .collect(),
            ..Report::default()
        };
        report.judge(Vec::new());
        let html = page(&report).unwrap();
        assert!(html.contains("every promise was kept"));
        assert_eq!(html.matches("<svg").count(), 6);
        for fault in &faults {
            assert!(html.contains(&fault.to_string()), "{fault}");
        }
        assert!(!html.contains("src=") && !html.contains("href="));
        report.judge(vec![Broken { promise: "D1", at: Duration::ZERO, what: "<b>".to_owned() }]);
        let html = page(&report).unwrap();
        assert!(html.contains("D1 was broken") && html.contains("&lt;b&gt;") && !html.contains("<b>"));
        // Nothing happened.
        page(&Report::default()).unwrap();
    }
}
