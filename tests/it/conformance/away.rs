//! What is said when the database or the token is away: what is known, or tryLater, and nothing else.

use std::time::Duration;

use goodstanding::ocsp::{CertStatus, HashAlgorithm, request};
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use super::asker::{Asker, TRY_LATER, random_serial, serial};
use crate::support::ca::KeyKind;
use crate::support::server::Server;
use crate::support::site::Site;
use crate::support::{eventually, http};

fn readiness(site: &Site) -> String {
    String::from_utf8(http::get(site.control, "/readyz").unwrap().body).unwrap()
}

/// Gives the table that the server learns of changes from another name.
fn rename(site: &Site, from: &str, to: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let options = SqliteConnectOptions::new().filename(site.path("goodstanding.db"));
        let mut database = SqliteConnection::connect_with(&options).await.unwrap();
        let rename = format!("ALTER TABLE {from} RENAME TO {to}");
        sqlx::query(sqlx::AssertSqlSafe(rename)).execute(&mut database).await.unwrap();
        database.close().await.unwrap();
    });
}

/// C3, L3: in the middle of the run. What is stored is served, and no status is signed that may have
/// changed unheard; the server says so, and goes on when the database is back.
#[test]
fn without_its_database_the_server_says_what_is_stored_and_else_try_later() {
    let site = Site::new(KeyKind::P256);
    site.reconfigure("[control]", "unknown_serial = \"unknown\"\nnonce = \"echo\"\n[control]");
    let pair = site.good_and_revoked();
    let server = Server::start(&site);
    let asker = Asker::new(&site).until_live(serial(&pair.good));
    let [good, revoked] = [&pair.good, &pair.revoked].map(serial);
    let id = |hash, serial| asker.cert_id(hash, serial);
    let asked = |ids: &[_], nonce: Option<&[u8]>| request::encode(ids, nonce).unwrap();
    let live = [
        asked(&[id(HashAlgorithm::Sha512, good)], None),
        asked(&[id(HashAlgorithm::Sha1, random_serial())], None),
        asked(&[id(HashAlgorithm::Sha1, good), id(HashAlgorithm::Sha1, revoked)], None),
    ];
    let with_nonce = asked(&[id(HashAlgorithm::Sha1, revoked)], Some(&[7; 32]));
    let check_well = || {
        live.iter().for_each(|asked| assert!(!asker.read(&asker.post(asked).body).responses.is_empty()));
        assert_eq!(asker.read(&asker.post(&with_nonce).body).nonce.as_deref(), Some(&[7; 32][..]));
    };
    check_well();
    let stored: Vec<_> = [good, revoked]
        .into_iter()
        .flat_map(|serial| [HashAlgorithm::Sha1, HashAlgorithm::Sha256].map(|hash| id(hash, serial)))
        .map(|id| asked(&[id], None))
        .map(|asked| (asker.post(&asked).body, asked))
        .collect();

    rename(&site, "feed", "feed_away");
    eventually("the end of readiness", Duration::from_secs(40), || {
        (server.readiness() == Some(503)).then_some(())
    });
    assert!(readiness(&site).contains("\"name\":\"feed\",\"ready\":false"), "{}", readiness(&site));
    for asked in &live {
        for reply in [asker.post(asked), asker.get(asked)] {
            assert_eq!(reply.body, TRY_LATER);
        }
    }
    for (before, asked) in &stored {
        assert_eq!(asker.post(asked).body, *before);
    }
    let answer = asker.read(&asker.post(&with_nonce).body);
    assert_eq!(answer.nonce, None, "the best stored answer");
    assert!(answer.responses.iter().all(|single| single.status != CertStatus::Good));

    rename(&site, "feed_away", "feed");
    eventually("readiness", Duration::from_secs(40), || (server.readiness() == Some(200)).then_some(()));
    check_well();
}

/// L3, C3: without a token the server is ready all the same, since what is stored is served; whether
/// answers are signed on the spot is told beside.
#[test]
fn without_its_token_the_server_is_ready_and_tells_that_nothing_is_signed_on_the_spot() {
    let site = Site::new(KeyKind::P256);
    site.reconfigure("[control]", "nonce = \"echo\"\n[control]");
    let pair = site.good_and_revoked();
    {
        let _server = Server::start(&site);
        let asker = Asker::new(&site).until_live(serial(&pair.good));
        eventually("the news", Duration::from_secs(20), || {
            readiness(&site).contains("answers are signed on the spot for: ").then_some(())
        });
        drop(asker);
    }
    std::fs::rename(site.path("softhsm/tokens"), site.path("softhsm/gone")).unwrap();
    std::fs::create_dir(site.path("softhsm/tokens")).unwrap();
    let server = Server::start(&site);
    assert_eq!(server.readiness(), Some(200));
    let said = readiness(&site);
    assert!(said.contains("no token signs, so stored answers or tryLater are given for: "), "{said}");
    assert!(said.contains("nonces"), "{said}");
    let asker = Asker::new(&site);
    let cert_id = asker.cert_id(HashAlgorithm::Sha1, serial(&pair.good));
    let answer = asker.answer(std::slice::from_ref(&cert_id), Some(&[7; 32]));
    assert_eq!((answer.nonce.clone(), answer.single(&cert_id).unwrap().status), (None, CertStatus::Good));
    let in_sha512 = asker.cert_id(HashAlgorithm::Sha512, serial(&pair.good));
    assert_eq!(asker.post(&request::encode(&[in_sha512], None).unwrap()).body, TRY_LATER);
}
