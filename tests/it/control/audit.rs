//! The audit log of a running installation, and finding what was done to it.

use goodstanding::clock::{Clock, SystemClock};
use goodstanding::store;
use serde_json::{Value, json};

use crate::support::api::call;
use crate::support::ca::KeyKind;
use crate::support::http;
use crate::support::server::Server;
use crate::support::site::{ISSUER, Site};

/// `audit export`.
fn lines(site: &Site) -> Vec<Value> {
    let out = site.goodstanding(&["audit", "export"]).ok().out();
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Runs statements on the database, as somebody who tampers with it would.
fn tamper(site: &Site, statement: &'static str) {
    let path = site.path("goodstanding.db");
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
        let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
        sqlx::raw_sql(statement).execute(&pool).await.unwrap();
        pool.close().await;
    });
}

#[test]
fn every_change_is_a_line_that_names_who_made_it() {
    let site = Site::new(KeyKind::P256);
    let leaf = site.ca.issue("audited.example.org");
    site.import_index();
    {
        let _server = Server::start(&site);
        call(&site, "POST", "/v1/certificates/test/0a/revocation").json(&json!({})).made();
        let body = json!({ "issuer": ISSUER, "serial": "0a", "not_after": "2099-01-01T00:00:00Z" });
        assert_eq!(call(&site, "POST", "/v1/certificates").json(&body).made().0, 201);
    }
    site.goodstanding(&["revoke", "--issuer", ISSUER, "--serial", &leaf.serial]).ok();
    site.goodstanding(&["presign"]).ok();
    site.goodstanding(&["credential", "new", "--name", "ra-1", "--scope", "read"]).ok();
    let lines = lines(&site);
    let told: Vec<(String, String)> = lines
        .iter()
        .map(|line| {
            let text = |name: &str| line[name].as_str().unwrap().to_owned();
            let actor = text("actor").split([' ', '(']).next().unwrap().to_owned();
            (actor, text("action"))
        })
        .collect();
    let mut others: Vec<_> = told.iter().filter(|(_, action)| action != "answer.sign").cloned().collect();
    others.dedup();
    let pair = |actor: &str, action: &str| (actor.to_owned(), action.to_owned());
    assert_eq!(
        others,
        [
            pair("command", "issuer.add"),
            pair("command", "responder.install"),
            pair("command", "certificate.register"),
            pair("anybody", "certificate.register"),
            pair("command", "certificate.revoke"),
            pair("command", "credential.new"),
        ],
        "{told:?}"
    );
    let signed: u64 = lines
        .iter()
        .filter(|line| line["action"] == "answer.sign")
        .map(|line| {
            assert_eq!(line["detail"]["token"], "hsm-a");
            assert_eq!(line["detail"]["sha256"].as_str().unwrap().len(), 64);
            line["detail"]["count"].as_u64().unwrap()
        })
        .sum();
    // The leaf, 0a, and the leaf again when it was revoked.
    assert_eq!(signed, 3);
    assert!(told.contains(&pair("goodstanding", "answer.sign")), "{told:?}");
    assert!(!site.goodstanding(&["audit", "export"]).ok().out().contains("gs1."), "no token is in the log");

    let verdict = site.json(&["audit", "verify"]);
    assert_eq!((&verdict["intact"], &verdict["lines"]), (&json!(true), &json!(lines.len())));
}

#[test]
fn a_changed_a_removed_and_a_moved_line_are_found_where_they_are() {
    for (statement, said) in [
        ("UPDATE audit SET actor = 'nobody' WHERE number = 3", "line 3 was changed"),
        ("UPDATE audit SET detail = '{}' WHERE number = 1", "line 1 was changed"),
        ("DELETE FROM audit WHERE number IN (2, 3)", "lines 2 to 3 are missing"),
        (
            "UPDATE audit SET number = -2 WHERE number = 2; UPDATE audit SET number = 2 WHERE number = 3;
             UPDATE audit SET number = 3 WHERE number = -2",
            "line 2 was changed",
        ),
    ] {
        let site = Site::bare(KeyKind::P256);
        let ca = site.ca.certificate();
        site.ca.issue("one.example.org");
        site.goodstanding(&["issuer", "add", "--name", ISSUER, "--certificate", ca.to_str().unwrap()]).ok();
        site.import_index();
        for name in ["a", "b", "c"] {
            site.goodstanding(&["credential", "new", "--name", name, "--scope", "read"]).ok();
        }
        site.goodstanding(&["audit", "verify"]).ok().says(&["5 lines"]);
        tamper(&site, statement);
        site.goodstanding(&["audit", "verify"]).exits(1).says(&["NOT as it was written", said]);
    }
}

#[test]
fn an_end_that_was_cut_off_is_found_by_an_anchor_from_the_log_or_the_metrics() {
    let site = Site::new(KeyKind::P256);
    let (anchor, scraped) = {
        let server = Server::start(&site);
        let body = json!({ "issuer": ISSUER, "serial": "0a", "not_after": "2099-01-01T00:00:00Z" });
        assert_eq!(call(&site, "POST", "/v1/certificates").json(&body).made().0, 201);
        server.terminate();
        let mut server = server;
        server.wait();
        let log = server.log();
        let line = log.lines().rfind(|line| line.contains("the audit log ends here")).unwrap().to_owned();
        let start = line.find("anchor=").unwrap() + "anchor=".len();
        let anchor: String = line[start..].chars().take_while(|c| !c.is_whitespace()).collect();
        let server = Server::start(&site);
        let metrics = String::from_utf8(http::get(site.control, "/metrics").unwrap().body).unwrap();
        drop(server);
        (anchor, metrics)
    };
    let (number, hash) = anchor.split_once(':').unwrap();
    assert!(scraped.contains(&format!("goodstanding_audit_lines {number}\n")), "{number}\n{scraped}");
    assert!(scraped.contains(hash), "{scraped}");
    let verify = || site.goodstanding(&["audit", "verify", "--anchor", &anchor]);
    verify().ok();
    tamper(&site, "DELETE FROM audit WHERE number = (SELECT max(number) FROM audit)");
    site.goodstanding(&["audit", "verify"]).ok();
    verify().exits(1).says(&["its end was cut off"]);
    site.goodstanding(&["audit", "verify", "--anchor", "nonsense"]).exits(2);
}

#[test]
fn old_lines_go_into_an_archive_and_the_rest_and_the_whole_still_verify() {
    let site = Site::bare(KeyKind::P256);
    let ca = site.ca.certificate();
    site.goodstanding(&["issuer", "add", "--name", ISSUER, "--certificate", ca.to_str().unwrap()]).ok();
    let line = |name: &str| {
        site.goodstanding(&["credential", "new", "--name", name, "--scope", "read"]).ok();
    };
    ["a", "b"].into_iter().for_each(line);
    std::thread::sleep(std::time::Duration::from_secs(2));
    let time = SystemClock.now().to_string();
    ["c", "d"].into_iter().for_each(line);
    let before = lines(&site);
    let archive = site.path("audit-1.jsonl");
    let (file, other) = (archive.to_str().unwrap(), site.path("audit-2.jsonl"));
    let prune = |before: &str, file: &str| {
        site.goodstanding(&["audit", "prune", "--before", before, "--archive", file])
    };
    prune("2099-01-01", file).exits(2).says(&["in the future"]);
    prune("soon", file).exits(2).says(&["no date such as"]);
    prune("2020-01-01", file).ok().says(&["nothing was pruned"]);
    assert!(!archive.exists());
    prune(&time, file).ok().says(&["3 lines, up to 3:", "audit-1.jsonl"]);
    // 4, 5, and the checkpoint.
    let after = lines(&site);
    assert_eq!(after[..2], before[3..]);
    assert_eq!((after.len(), &after[2]["action"]), (3, &json!("audit.prune")));
    let anchor = format!("2:{}", before[1]["hash"].as_str().unwrap());
    let verify = |more: &[&str]| site.goodstanding(&[&["audit", "verify"], more].concat());
    verify(&[]).ok().says(&["3 lines, those up to 3:"]);
    verify(&["--archive", file, "--anchor", &anchor]).ok().says(&["6 lines\n"]);
    verify(&["--anchor", &anchor]).exits(1).says(&["give the archive"]);
    prune(&time, file).ok().says(&["nothing was pruned"]);
    // Nothing is written over, and a second archive goes on where the first ended.
    std::thread::sleep(std::time::Duration::from_secs(1));
    let later = SystemClock.now().to_string();
    prune(&later, file).exits(1).says(&["creating the archive", "exists"]);
    prune(&later, other.to_str().unwrap()).ok();
    verify(&[]).ok().says(&["1 lines"]);
    verify(&["--archive", other.to_str().unwrap(), "--archive", file]).ok().says(&["7 lines"]);
    verify(&["--archive", file]).exits(1).says(&["lines 4 to 6 are missing"]);
    // An archive is as good as the log: a change in it is found.
    let text = std::fs::read_to_string(&archive).unwrap();
    std::fs::write(&archive, text.replacen("credential.new", "credential.old", 1)).unwrap();
    verify(&["--archive", file, "--archive", other.to_str().unwrap()]).exits(1).says(&["line 2 was changed"]);
}

#[test]
fn a_line_that_was_removed_without_a_checkpoint_is_found_after_a_prune_too() {
    let site = Site::bare(KeyKind::P256);
    for name in ["a", "b", "c"] {
        site.goodstanding(&["credential", "new", "--name", name, "--scope", "read"]).ok();
    }
    std::thread::sleep(std::time::Duration::from_secs(1));
    let time = SystemClock.now().to_string();
    for name in ["d", "e", "f"] {
        site.goodstanding(&["credential", "new", "--name", name, "--scope", "read"]).ok();
    }
    let file = site.path("audit.jsonl");
    let prune = ["audit", "prune", "--before", &time, "--archive", file.to_str().unwrap()];
    site.goodstanding(&prune).ok();
    tamper(&site, "DELETE FROM audit WHERE number = 5");
    site.goodstanding(&["audit", "verify"]).exits(1).says(&["lines 1 to 5 are missing"]);
    let file = site.path("again.jsonl");
    let prune = ["audit", "prune", "--before", &time, "--archive", file.to_str().unwrap()];
    site.goodstanding(&prune).exits(1).says(&["nothing was pruned, so that nothing is hidden"]);
    assert!(!file.exists());
}

/// The store as a library: a line can be written only where the change is.
#[test]
fn a_change_that_is_rolled_back_leaves_no_line() {
    let site = Site::bare(KeyKind::P256);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = store::open(&site.database()).await.unwrap();
        store.add_issuer("a", b"certificate").await.unwrap();
        let before = store.audit_head().await.unwrap();
        store.add_issuer("a", b"another").await.unwrap_err();
        assert_eq!(store.audit_head().await.unwrap(), before);
        store.close().await;
    });
}
