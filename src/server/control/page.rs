//! The dashboard: one page for the person on call, whole as it comes from the server. No script, nothing
//! from elsewhere; it loads itself anew.

use std::fmt::{self, Write};
use std::time::Duration;

use axum::http::header;
use axum::response::{Html, IntoResponse, Response};

use super::situation::{Situation, TokenSituation};
use crate::limits::GuardState;

/// Seconds between two loads.
const RELOAD: u64 = 10;

/// The most urgent thing that can be said in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Good,
    Warn,
    Bad,
}

impl Level {
    const fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

/// Text as it may stand in HTML.
struct Escaped<'t>(&'t str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            other => f.write_char(other),
        })
    }
}

/// `3d 4h`, `12 s`: two units at the most.
fn span(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        return format!("{} ms", duration.as_millis());
    }
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// `1 234 567`.
fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// `/`
pub(super) fn respond(situation: &Situation) -> Response {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
    (
        [(header::CONTENT_SECURITY_POLICY, policy), (header::CACHE_CONTROL, "no-store")],
        Html(render(situation)),
    )
        .into_response()
}

fn render(situation: &Situation) -> String {
    let mut page = String::with_capacity(16 * 1024);
    // Writing to a String does not fail.
    _ = write_page(&mut page, situation);
    page
}

/// Everything that is not as it should be, the worst first.
fn complaints(situation: &Situation) -> Vec<(Level, String)> {
    let mut found = Vec::new();
    for check in situation.checks.iter().filter(|check| !check.ready) {
        found.push((Level::Bad, format!("not ready: {} – {}", check.name, check.detail)));
    }
    if situation.draining {
        found.push((Level::Warn, "this process is ending: it finishes what is under way".to_owned()));
    }
    if situation.fleet.expired > 0 {
        found.push((
            Level::Bad,
            format!("{} answers have expired and are not served", count(situation.fleet.expired)),
        ));
    }
    if let Some(left) = situation.until_stale {
        if left.is_zero() {
            found.push((Level::Bad, "an answer is stale: past its legal deadline".to_owned()));
        } else if left < situation.validity / 14 {
            found.push((Level::Warn, format!("the first answer is stale in {}", span(left))));
        }
    }
    for token in situation.tokens.iter().filter(|token| !token.serving) {
        found.push((Level::Bad, format!("token {}: {}", token.name, token.state)));
    }
    if let Some(pressure) = &situation.pressure {
        let level = match pressure.state {
            GuardState::Green => None,
            GuardState::Amber | GuardState::Blind => Some(Level::Warn),
            GuardState::Red => Some(Level::Bad),
        };
        found.extend(level.map(|level| (level, format!("capacity: {}", pressure.reason))));
    }
    found.sort_by_key(|(level, _)| std::cmp::Reverse(*level));
    found
}

fn write_page(page: &mut String, situation: &Situation) -> fmt::Result {
    let complaints = complaints(situation);
    let worst = complaints.first().map_or(Level::Good, |(level, _)| *level);
    let word = match worst {
        Level::Good => "All answers are in good standing",
        Level::Warn => "Look at this",
        Level::Bad => "Something is wrong",
    };
    write!(page, "{HEAD}<meta http-equiv=\"refresh\" content=\"{RELOAD}\">{STYLE}</head><body>")?;
    write!(
        page,
        "<header class=\"{}\"><h1>{word}</h1><p>Goodstanding {} · {} · this page loads anew every {RELOAD} s</p>",
        worst.class(),
        env!("CARGO_PKG_VERSION"),
        situation.at
    )?;
    if !complaints.is_empty() {
        page.push_str("<ul>");
        for (level, text) in &complaints {
            write!(page, "<li class=\"{}\">{}</li>", level.class(), Escaped(text))?;
        }
        page.push_str("</ul>");
    }
    page.push_str("</header><main>");
    fleet(page, situation)?;
    deadlines(page, situation)?;
    lanes(page, situation)?;
    tokens(page, &situation.tokens)?;
    pressure(page, situation)?;
    details(page, situation)?;
    page.push_str(FOOT);
    Ok(())
}

fn fleet(page: &mut String, situation: &Situation) -> fmt::Result {
    let fleet = situation.fleet;
    page.push_str("<section><h2>Fleet</h2><div class=\"fleet\">");
    let share = if fleet.certificates == 0 { 1.0 } else { fleet.answers as f64 / fleet.certificates as f64 };
    ring(page, share)?;
    page.push_str("<table>");
    let due =
        fleet.oldest_due.map_or_else(|| "nothing is due".to_owned(), |due| format!("for {}", span(due)));
    for (name, value) in [
        ("certificates", count(fleet.certificates)),
        ("answered", count(fleet.answers)),
        ("without an answer", count(fleet.certificates.saturating_sub(fleet.answers))),
        ("expired answers", count(fleet.expired)),
        ("being signed now", count(fleet.under_way)),
        ("oldest has been due", due),
        ("signed since the start", count(fleet.signed)),
        ("failed since the start", count(fleet.failed)),
    ] {
        write!(page, "<tr><th>{name}</th><td>{value}</td></tr>")?;
    }
    page.push_str("</table></div></section>");
    Ok(())
}

/// A ring that is closed when every certificate has its answer.
fn ring(page: &mut String, share: f64) -> fmt::Result {
    // The circumference at r = 15.915 is 100.
    let filled = share.clamp(0.0, 1.0) * 100.0;
    // Nearly all is not all.
    let shown = if share < 1.0 { (share * 1000.0).floor() / 10.0 } else { 100.0 };
    write!(
        page,
        "<svg class=\"ring\" viewBox=\"0 0 42 42\" role=\"img\" aria-label=\"{shown} % answered\">\
         <circle cx=\"21\" cy=\"21\" r=\"15.915\" class=\"track\"/>\
         <circle cx=\"21\" cy=\"21\" r=\"15.915\" class=\"fill\" stroke-dasharray=\"{filled:.2} {:.2}\" transform=\"rotate(-90 21 21)\"/>\
         <text x=\"21\" y=\"21\">{shown} %</text><text x=\"21\" y=\"27\" class=\"small\">answered</text></svg>",
        100.0 - filled
    )
}

fn deadlines(page: &mut String, situation: &Situation) -> fmt::Result {
    page.push_str("<section><h2>Deadlines</h2>");
    let scale = situation.validity.as_secs_f64().max(1.0);
    for (name, left, what) in [
        ("time to stale", situation.until_stale, "until the first answer passes its legal deadline"),
        ("time to expiry", situation.until_expiry, "until the first answer reaches nextUpdate"),
    ] {
        let text = left.map_or_else(|| "not known yet".to_owned(), span);
        let part = left.map_or(0.0, |left| left.as_secs_f64() / scale);
        let level = match part {
            _ if left.is_none() => Level::Good,
            part if part <= 0.0 => Level::Bad,
            part if part < 1.0 / 14.0 => Level::Warn,
            _ => Level::Good,
        };
        let class = if left.is_some() { level.class() } else { "unknown" };
        write!(page, "<p class=\"big {}\">{text}<span>{name}: {what}</span></p>", class)?;
        bar(page, part, level)?;
    }
    write!(
        page,
        "<p class=\"note\">The bars are {} long, the validity of an answer.</p></section>",
        span(situation.validity)
    )
}

fn bar(page: &mut String, part: f64, level: Level) -> fmt::Result {
    write!(
        page,
        "<svg class=\"bar\" viewBox=\"0 0 100 4\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
         <rect width=\"100\" height=\"4\" class=\"track\"/><rect width=\"{:.2}\" height=\"4\" class=\"{}\"/></svg>",
        part.clamp(0.0, 1.0) * 100.0,
        level.class()
    )
}

fn lanes(page: &mut String, situation: &Situation) -> fmt::Result {
    page.push_str("<section><h2>Lanes</h2><table><tr><th>lane</th><td>waiting</td><td>oldest</td><td class=\"wide\"></td></tr>");
    let longest = situation.lanes.iter().map(|lane| lane.waiting).max().unwrap_or(0).max(1);
    for lane in &situation.lanes {
        let oldest = lane.oldest.map_or_else(|| "–".to_owned(), span);
        write!(
            page,
            "<tr><th>{}</th><td>{}</td><td>{oldest}</td><td class=\"wide\">",
            Escaped(&lane.name),
            count(lane.waiting)
        )?;
        bar(page, lane.waiting as f64 / longest as f64, Level::Good)?;
        page.push_str("</td></tr>");
    }
    page.push_str("</table><p class=\"note\">Signatures that wait for a token, the most urgent lane first.</p></section>");
    Ok(())
}

fn tokens(page: &mut String, tokens: &[TokenSituation]) -> fmt::Result {
    page.push_str("<section><h2>Tokens</h2>");
    if tokens.is_empty() {
        page.push_str("<p>No token is in use by this process.</p></section>");
        return Ok(());
    }
    page.push_str("<table class=\"tokens\"><tr><th>token</th><td>state</td><td>signatures/s</td><td>p50</td><td>p99</td><td>signed</td><td>failed</td></tr>");
    for token in tokens {
        let level = if token.serving { Level::Good } else { Level::Bad };
        let rate = token.rate.map_or_else(|| "–".to_owned(), |rate| format!("{rate:.0}"));
        write!(
            page,
            "<tr><th>{}</th><td><span class=\"dot {}\"></span>{}, {} sessions</td><td>{rate}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            Escaped(&token.name),
            level.class(),
            Escaped(&token.state),
            token.sessions,
            latency(token, token.p50),
            latency(token, token.p99),
            count(token.signed),
            count(token.failures)
        )?;
    }
    page.push_str("</table></section>");
    Ok(())
}

/// How long a signature takes, once there was one.
fn latency(token: &TokenSituation, time: Duration) -> String {
    if token.signed == 0 {
        return "–".to_owned();
    }
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

fn pressure(page: &mut String, situation: &Situation) -> fmt::Result {
    let Some(pressure) = &situation.pressure else { return Ok(()) };
    let level = match pressure.state {
        GuardState::Green => Level::Good,
        GuardState::Amber | GuardState::Blind => Level::Warn,
        GuardState::Red => Level::Bad,
    };
    page.push_str("<section><h2>Pressure</h2>");
    write!(
        page,
        "<p class=\"big {}\">{:.0} %<span>of the nominal limits are in force for new certificates</span></p>",
        level.class(),
        pressure.multiplier * 100.0
    )?;
    bar(page, pressure.multiplier, level)?;
    page.push_str("<table>");
    let mut row =
        |name: &str, value: &str| write!(page, "<tr><th>{name}</th><td>{}</td></tr>", Escaped(value));
    row("why", &pressure.reason)?;
    if let Some(utilisation) = pressure.utilisation {
        row("utilisation", &format!("{:.0} %", utilisation * 100.0))?;
    }
    if let Some(forecast) = &pressure.forecast {
        row("forecast", forecast)?;
    }
    if let Some(at) = pressure.eases_at {
        row("expected to ease", &at.to_string())?;
    }
    if let Some(tally) = situation.tally {
        row(
            "orders since the start",
            &format!(
                "{} new, {} of them refused ({} for capacity); {} renewals",
                count(tally.new_orders),
                count(tally.new_orders_refused),
                count(tally.new_orders_refused_for_capacity),
                count(tally.renewals)
            ),
        )?;
    }
    page.push_str("</table></section>");
    Ok(())
}

fn details(page: &mut String, situation: &Situation) -> fmt::Result {
    page.push_str("<section><h2>Checks</h2><table>");
    for check in &situation.checks {
        let level = if check.ready { Level::Good } else { Level::Bad };
        write!(
            page,
            "<tr><th><span class=\"dot {}\"></span>{}</th><td>{}</td></tr>",
            level.class(),
            Escaped(&check.name),
            Escaped(&check.detail)
        )?;
    }
    let head = situation.audit;
    let hash: String = head.hash.to_string().chars().take(16).collect();
    write!(
        page,
        "<tr><th>audit log</th><td>{} lines; the last begins with {hash}</td></tr></table></section>",
        count(head.number.unsigned_abs())
    )
}

const HEAD: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>Goodstanding</title>";

const STYLE: &str = "<style>
:root { --ink: #1b1d21; --paper: #f4f5f7; --card: #fff; --line: #dfe2e7; --soft: #667085; --good: #1a7f4b; --warn: #b25e09; --bad: #c0292b }
@media (prefers-color-scheme: dark) { :root { --ink: #e7e9ed; --paper: #14161a; --card: #1d2026; --line: #343943; --soft: #99a1b0; --good: #45b97c; --warn: #e0973a; --bad: #ef6461 } }
* { box-sizing: border-box }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0; color: var(--ink); background: var(--paper) }
header { padding: 1.1rem max(1rem, calc(50vw - 36rem)); color: #fff; background: var(--good) }
header.warn { background: #8f4b07 } header.bad { background: #a01f22 } header.good { background: #14663c }
header h1 { font-size: 1.5rem; margin: 0 } header p { margin: .1rem 0 0; opacity: .85 }
header ul { margin: .6rem 0 0; padding-left: 1.1rem }
main { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: 1rem; padding: 1rem max(1rem, calc(50vw - 36rem)) }
section { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: 1rem; overflow-x: auto }
h2 { font-size: .8rem; letter-spacing: .06em; text-transform: uppercase; color: var(--soft); margin: 0 0 .6rem }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th { text-align: left; font-weight: 500; padding: .2rem .8rem .2rem 0; white-space: nowrap; vertical-align: top }
td { padding: .2rem .8rem .2rem 0; vertical-align: top } td.wide { width: 40% } .tokens td { white-space: nowrap }
tr + tr > * { border-top: 1px solid var(--line) }
.big { font-size: 1.7rem; font-weight: 600; margin: .2rem 0; line-height: 1.2 }
.big span { display: block; font-size: .9rem; font-weight: 400; color: var(--soft) }
.big.good { color: var(--good) } .big.warn { color: var(--warn) } .big.bad { color: var(--bad) } .big.unknown { color: var(--soft); font-weight: 400 }
.note { color: var(--soft); margin: .5rem 0 0; font-size: .85rem }
.dot { display: inline-block; width: .65em; height: .65em; border-radius: 50%; margin-right: .45em; background: var(--good) }
.dot.warn { background: var(--warn) } .dot.bad { background: var(--bad) }
.fleet { display: flex; gap: 1.5rem; align-items: center; flex-wrap: wrap } .fleet table { flex: 1 1 14rem }
.ring { width: 8.5rem }
.ring circle { fill: none; stroke-width: 4 } .ring .track { stroke: var(--line) } .ring .fill { stroke: var(--good) }
.ring text { font-size: 6.5px; font-weight: 600; text-anchor: middle; fill: var(--ink); dominant-baseline: middle }
.ring .small { font-size: 3.6px; font-weight: 400; fill: var(--soft) }
.bar { display: block; width: 100%; height: .55rem; margin: .3rem 0 } .bar .track { fill: var(--line) }
.bar .good { fill: var(--good) } .bar .warn { fill: var(--warn) } .bar .bad { fill: var(--bad) }
footer { padding: 0 max(1rem, calc(50vw - 36rem)) 2rem; color: var(--soft) } footer a { color: inherit; margin-right: 1rem }
</style>";

const FOOT: &str = "</main><footer><a href=\"/readyz\">/readyz</a><a href=\"/livez\">/livez</a><a href=\"/metrics\">/metrics</a>\
<a href=\"/openapi.json\">/openapi.json</a><a href=\"/v1/capacity\">/v1/capacity</a><a href=\"/v1/limits\">/v1/limits</a></footer></body></html>\n";

#[cfg(test)]
mod tests {
    use super::super::situation::{Fleet, LaneSituation};
    use super::*;
    use crate::limits::Pressure;
    use crate::server::control::Check;

    fn situation() -> Situation {
        Situation {
            checks: vec![Check { name: "shelf".to_owned(), ready: true, detail: "all".to_owned() }],
            fleet: Fleet { certificates: 1_000, answers: 999, ..Fleet::default() },
            until_stale: Some(Duration::from_secs(3 * 86_400)),
            validity: Duration::from_secs(7 * 86_400),
            lanes: vec![LaneSituation { name: "refresh".to_owned(), waiting: 12, oldest: None }],
            pressure: Some(Pressure::none()),
            ..Situation::default()
        }
    }

    #[test]
    fn a_process_without_a_fault_says_so_and_nearly_all_is_not_all() {
        let page = render(&situation());
        assert!(page.contains("in good standing") && page.contains("99.9 %"), "{page}");
        assert!(page.contains("3 d 0 h") && page.contains("refresh"), "{page}");
        assert!(!page.contains("<script") && !page.contains("http://") && !page.contains("https://"));
    }

    #[test]
    fn what_is_wrong_stands_at_the_top_the_worst_first() {
        let mut situation = situation();
        situation.pressure = Some(Pressure { state: GuardState::Amber, ..Pressure::none() });
        situation.checks[0].ready = false;
        situation.fleet.expired = 3;
        let found = complaints(&situation);
        let levels: Vec<_> = found.iter().map(|(level, _)| *level).collect();
        assert_eq!(levels, [Level::Bad, Level::Bad, Level::Warn], "{found:?}");
        assert!(render(&situation).contains("Something is wrong"));
    }

    #[test]
    fn text_from_outside_cannot_become_markup() {
        let mut situation = situation();
        let state = "<script>alert('x')</script>".to_owned();
        let (p50, p99) = (Duration::ZERO, Duration::ZERO);
        let name = "\"&".to_owned();
        situation.tokens = vec![TokenSituation {
            name,
            serving: false,
            state,
            sessions: 0,
            rate: None,
            p50,
            p99,
            signed: 0,
            failures: 0,
        }];
        let page = render(&situation);
        assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)") && page.contains("&quot;&amp;"));
        assert!(!page.contains("<script"));
    }

    #[test]
    fn spans_and_numbers_are_short() {
        for (seconds, text) in
            [(0, "0 ms"), (59, "59 s"), (61, "1 min 1 s"), (7_260, "2 h 1 min"), (90_000, "1 d 1 h")]
        {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(count(999), "999");
    }
}
