//! The limiter through the command line, and across SIGKILL.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use goodstanding::clock::{Stopwatch, SystemClock, UnixTime};
use goodstanding::limits::{
    IssuedCertificate, Limiter, NewOverride, OrderId, OrderRequest, OverrideKey, Pressure, Profile,
    ReleaseCause, Settings, Subject,
};
use goodstanding::store::{self, LedgerEntry, LedgerPosition, OrderState};
use tokio::sync::watch;

use crate::support::ca::KeyKind;
use crate::support::site::{Site, root};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn profile(name: &str) -> Profile {
    Profile::load(&root().join("config/limits").join(format!("{name}.toml"))).unwrap()
}

async fn limiter(url: &str, profile: Profile) -> Limiter {
    let ledger = store::open(url).await.unwrap().ledger();
    let pressure = watch::channel(Pressure::none()).1;
    let (clock, settings) = (SystemClock::shared(), Settings::default());
    Limiter::start(ledger, Arc::new(profile), pressure, clock, settings).await.unwrap().0
}

fn request(name: &str) -> OrderRequest {
    OrderRequest {
        account: "acct-1".to_owned(),
        identifiers: vec![name.to_owned()],
        ..OrderRequest::default()
    }
}

fn with_profile(name: &str) -> Site {
    let site = Site::bare(KeyKind::P256);
    let file = root().join("config/limits").join(format!("{name}.toml"));
    let text = format!("{}[limits]\nprofile = \"{}\"\n", site.default_configuration(), file.display());
    site.configure(&text);
    site
}

#[test]
fn limits_show_draws_each_tier_and_lists_what_counts() {
    let site = with_profile("two-tier");
    runtime().block_on(async {
        let limiter = limiter(&site.database(), profile("two-tier")).await;
        let order = limiter.order(&request("www.example.co.uk")).await.unwrap().order().unwrap();
        let certificate = IssuedCertificate {
            name: "test/0a".to_owned(),
            ari: None,
            not_after: UnixTime::parse_rfc3339("2099-01-01T00:00:00Z").unwrap(),
        };
        limiter.commit(order, certificate).await.unwrap();
        limiter.order(&request("mail.example.co.uk")).await.unwrap();
        limiter.register_account("192.0.2.1".parse::<IpAddr>().unwrap(), None).await.unwrap();
    });
    let shown =
        site.goodstanding(&["limits", "show", "--domain", "shop.example.co.uk", "--ip", "192.0.2.1"]).ok();
    let shown = shown.says(&[
        "profile two-tier",
        "certificates-per-domain  example.co.uk",
        "3/2h   ████████████████░░░░░░░░  2 of 3",
        "10/7d  ████░░░░░░░░░░░░░░░░░░░░  2 of 10",
        "registrations-per-ip  192.0.2.1",
        "test/0a",
        "(held)",
        "mail.example.co.uk",
        "WHAT COUNTS",
    ]);
    assert!(!shown.out().contains("certificates-per-exact-set  www"), "{}", shown.transcript());
    let json = site.json(&["limits", "show", "--domain", "example.co.uk"]);
    let limit = &json["limits"][0];
    assert_eq!(
        (&limit["limit"], &limit["key"]),
        (&"certificates-per-domain".into(), &"example.co.uk".into())
    );
    assert_eq!(limit["tiers"][0]["tier"], "3/2h");
    assert_eq!(limit["tiers"][0]["count"], 2);
    assert_eq!(limit["counted"][1]["what"], "test/0a");
    assert_eq!(limit["counted"][0]["held"], true, "a held place leaves first: {json}");
}

#[test]
fn an_override_is_set_listed_used_and_taken_back() {
    let site = with_profile("current");
    let add = |limit: &str, more: &[&str]| {
        let arguments =
            ["limits", "override", "add", "--limit", limit, "--until", "90d", "--reason", "ticket 17"];
        site.goodstanding(&[&arguments[..], more].concat())
    };
    add("certificates-per-domain", &["--domain", "www.example.com", "--allow", "500"])
        .ok()
        .says(&["example.com has 500/7d in certificates-per-domain until 20"]);
    add("orders-per-account", &["--account", "abuser", "--allow", "0"]).ok().says(&["abuser is blocked"]);
    add("registrations-per-ip", &["--everybody", "--allow", "99"])
        .exits(2)
        .says(&["no override for registrations"]);
    add("certificates-per-domain", &["--allow", "99"]).exits(2).says(&["--domain, --account"]);
    site.goodstanding(&["limits", "override", "list"]).ok().says(&["500/7d", "ticket 17", "abuser", "0/3h"]);
    site.goodstanding(&["limits", "show", "--domain", "example.com"])
        .ok()
        .says(&["0 of 500", "override until"]);
    let all = site.json(&["limits", "override", "list"]);
    let number = all[0]["id"].to_string();
    site.goodstanding(&["limits", "override", "remove", &number]).ok().says(&["again"]);
    site.goodstanding(&["limits", "override", "remove", &number]).exits(2).says(&["there is no override"]);
    assert_eq!(site.json(&["limits", "override", "list"]).as_array().unwrap().len(), 1);
    site.goodstanding(&["limits", "show", "--domain", "example.com"]).ok().says(&["0 of 50"]);
    site.goodstanding(&["limits", "show", "--domain", "exa mple"]).exits(2).says(&["no DNS name"]);
}

#[test]
fn a_profile_with_errors_is_told_by_every_command_that_needs_it() {
    let site = Site::bare(KeyKind::P256);
    site.goodstanding(&["limits", "show"]).exits(2).says(&["names no profile"]);
    let file = site.path("limits.toml");
    std::fs::write(&file, "name = \"a\"\nhelp = \"https://a.example/\"\nburst = 3\n").unwrap();
    let text = format!("{}[limits]\nprofile = \"{}\"\n", site.default_configuration(), file.display());
    site.configure(&text);
    site.goodstanding(&["limits", "show"]).exits(1).says(&["limits.toml:3: unknown field \"burst\""]);
    site.goodstanding(&["config", "check"]).exits(3).says(&["limits.toml:3: unknown field \"burst\""]);
}

/// The database that the child below works on.
const CHILD: &str = "GOODSTANDING_TEST_LEDGER";

/// Clients of the child.
const CLIENTS: usize = 16;

#[test]
fn after_sigkill_nothing_confirmed_is_lost_and_nothing_counts_twice() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/ledger.db", folder.path().display());
    // What the child had confirmed, by order: its name and how it stood.
    let mut confirmed: BTreeMap<i64, (String, String)> = BTreeMap::new();
    for round in 0..5_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "limits::a_process_that_orders_until_it_is_killed", "--ignored", "--nocapture"])
            .env(CHILD, &url)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut running: Option<Stopwatch> = None;
        let mut heard = 0;
        for line in lines {
            let line = line.unwrap();
            let Some(words) = line.strip_prefix("confirmed ") else { continue };
            let [state, id, name]: [&str; 3] = words.split(' ').collect::<Vec<_>>().try_into().unwrap();
            confirmed.insert(id.parse().unwrap(), (name.to_owned(), state.to_owned()));
            heard += 1;
            let running = *running.get_or_insert_with(Stopwatch::start);
            if running.elapsed() > Duration::from_millis(150 + round * 70) && heard >= CLIENTS {
                // SIGKILL; what it had written to the pipe before is still read.
                let _ = child.kill();
            }
        }
        let ended = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(9), "{ended}");
    }
    runtime().block_on(check(&url, &confirmed));
}

/// Holds the ledger against what was confirmed, and the limiter's counts against the ledger.
async fn check(url: &str, confirmed: &BTreeMap<i64, (String, String)>) {
    let ledger = store::open(url).await.unwrap().ledger();
    let records = ledger.ledger_after(LedgerPosition(0), u32::MAX).await.unwrap();
    let mut orders: BTreeMap<i64, (String, &str)> = BTreeMap::new();
    for (_, record) in &records {
        let LedgerEntry::Order(order) = &record.entry else { panic!("{record:?}") };
        let state = match order.state {
            OrderState::Reserved { .. } => "reserved",
            OrderState::Issued { .. } => "issued",
            OrderState::Released { .. } => "released",
        };
        assert!(orders.insert(record.id.0, (order.identifiers[0].clone(), state)).is_none());
    }
    assert!(confirmed.len() > 5 * CLIENTS, "the children did their work: {}", confirmed.len());
    for (id, (name, state)) in confirmed {
        let (found, now) =
            orders.get(id).unwrap_or_else(|| panic!("order {id} ({name}) was confirmed and is lost"));
        assert_eq!(found, name);
        // What a child did next may have been written and not confirmed.
        assert!(now == state || state == "reserved", "order {id} was confirmed {state} and is {now}");
    }
    // Written and not confirmed: at most what each client of each child had under way.
    let unconfirmed = orders.keys().filter(|id| !confirmed.contains_key(id)).count();
    assert!(unconfirmed <= 5 * CLIENTS, "{unconfirmed} orders that nobody was told of");
    let names: std::collections::HashSet<_> = orders.values().map(|(name, _)| name).collect();
    assert_eq!(names.len(), orders.len(), "a name was ordered once, so it is there once");
    let limiter = limiter(url, profile("staging")).await;
    let subject = Subject { domain: Some("example.com".to_owned()), ..Subject::default() };
    let standing = limiter.show(subject).await.unwrap();
    let domain = standing.limits.iter().find(|limit| limit.state.key == "example.com").unwrap();
    let holding = orders.values().filter(|(_, state)| *state != "released").count();
    assert_eq!(domain.state.tiers[0].count, holding as u64);
}

#[test]
#[ignore = "the test above runs it in a process of its own, and kills that"]
fn a_process_that_orders_until_it_is_killed() {
    let Ok(url) = std::env::var(CHILD) else { return };
    runtime().block_on(async {
        let limiter = limiter(&url, profile("staging")).await;
        let mut clients = tokio::task::JoinSet::new();
        for client in 0..CLIENTS {
            let limiter = limiter.clone();
            clients.spawn(async move {
                for round in 0_usize.. {
                    let name = format!("p{}c{client}r{round}.example.com", std::process::id());
                    let order = OrderRequest { account: format!("acct-{client}-{round}"), ..request(&name) };
                    let Some(id) = limiter.order(&order).await.unwrap().order() else { return };
                    println!("confirmed reserved {id} {name}");
                    act(&limiter, id, &name, round).await;
                }
            });
        }
        clients.join_all().await;
    });
}

async fn act(limiter: &Limiter, id: OrderId, name: &str, round: usize) {
    match round % 3 {
        0 => {
            let not_after = UnixTime::parse_rfc3339("2099-01-01T00:00:00Z").unwrap();
            let certificate = IssuedCertificate { name: format!("test/{id}"), ari: None, not_after };
            limiter.commit(id, certificate).await.unwrap();
            println!("confirmed issued {id} {name}");
        }
        1 => {
            limiter.release(id, ReleaseCause::Abandoned).await.unwrap();
            println!("confirmed released {id} {name}");
        }
        _ => {}
    }
}

#[test]
fn an_override_of_another_process_is_in_force_at_the_next_decision() {
    let site = with_profile("2016-01");
    runtime().block_on(async {
        let limiter = limiter(&site.database(), profile("2016-01")).await;
        assert!(limiter.order(&request("example.com")).await.unwrap().order().is_some());
        let block =
            ["limits", "override", "add", "--limit", "certificates-per-domain", "--domain", "example.com"];
        let rest = ["--allow", "0", "--until", "1d", "--reason", "abuse"];
        site.goodstanding(&[&block[..], &rest].concat()).ok();
        let refused = limiter.order(&request("www.example.com")).await.unwrap();
        assert!(refused.refusal().unwrap().detail.contains("blocked"), "{refused:?}");
        let again = NewOverride {
            limit: "certificates-per-domain".to_owned(),
            key: OverrideKey::Domain("example.com".to_owned()),
            allow: "9".to_owned(),
            until: UnixTime::parse_rfc3339("2099-01-01T00:00:00Z").unwrap(),
            reason: "cleared up".to_owned(),
        };
        limiter.add_override(again).await.unwrap();
        assert!(limiter.order(&request("www.example.com")).await.unwrap().order().is_some());
    });
    site.goodstanding(&["limits", "show", "--domain", "example.com"]).ok().says(&["2 of 9"]);
}
