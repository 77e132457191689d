use super::super::credentials::Credential;
use super::*;
use crate::clock::Stopwatch;

fn peer(address: &str) -> Peer {
    Peer { address: SocketAddr::new(address.parse().unwrap(), 4), certificate: None }
}

fn gate(scopes: &[Scope], rate: Option<u32>) -> (Gate, String) {
    let made = token::new_token("ra-1").unwrap();
    let credential =
        Credential { name: "ra-1".into(), hash: made.hash, scopes: scopes.iter().copied().collect(), rate };
    let credentials = Credentials { credentials: vec![credential], webhooks: Vec::new() };
    (Gate::new(Some(credentials), false).unwrap(), made.token.expose_secret().to_owned())
}

fn bearer(token: &str) -> HeaderMap {
    [(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap())].into_iter().collect()
}

async fn admit(gate: &Gate, scope: Scope, headers: &HeaderMap) -> Result<Caller, u16> {
    let admitted = gate.admit(scope, &Method::POST, headers, &peer("192.0.2.1")).await;
    admitted.map_err(|refusal| refusal.into_response().status().as_u16())
}

#[tokio::test]
async fn a_token_opens_what_its_scopes_name_and_admin_opens_all() {
    let (gate, token) = gate(&[Scope::Revoke], None);
    let headers = bearer(&token);
    let caller = admit(&gate, Scope::Revoke, &headers).await.unwrap();
    assert_eq!(caller.actor, "credential ra-1 from 192.0.2.1");
    assert_eq!(admit(&gate, Scope::Certificates, &headers).await, Err(403));
    assert_eq!(admit(&gate, Scope::Admin, &headers).await, Err(403));
    let (gate, token) = self::gate(&[Scope::Admin], None);
    for scope in Scope::ALL {
        assert!(admit(&gate, scope, &bearer(&token)).await.is_ok());
    }
}

#[tokio::test]
async fn no_token_a_wrong_one_and_one_of_an_unknown_name_are_all_401() {
    let (gate, token) = gate(&[Scope::Read], None);
    assert_eq!(admit(&gate, Scope::Read, &HeaderMap::new()).await, Err(401));
    let other = token::new_token("ra-1").unwrap();
    let unknown = token::new_token("nobody").unwrap();
    for wrong in [other.token.expose_secret(), unknown.token.expose_secret(), "gs1.", "x", &token[..40]] {
        assert_eq!(admit(&gate, Scope::Read, &bearer(wrong)).await, Err(401), "{wrong}");
    }
    let response = Refusal::Missing.into_response();
    assert!(response.headers()[header::WWW_AUTHENTICATE].to_str().unwrap().starts_with("Bearer "));
}

#[tokio::test]
async fn guessing_is_slowed_down_and_tokens_in_use_are_not() {
    let (gate, token) = gate(&[Scope::Read], None);
    admit(&gate, Scope::Read, &bearer(&token)).await.unwrap();
    for _ in 0..10 {
        assert_eq!(admit(&gate, Scope::Read, &bearer("gs1.ra-1.guess")).await, Err(401));
    }
    assert_eq!(admit(&gate, Scope::Read, &bearer("gs1.ra-1.guess")).await, Err(429));
    admit(&gate, Scope::Read, &bearer(&token)).await.unwrap();
    let elsewhere =
        gate.admit(Scope::Read, &Method::GET, &bearer("gs1.ra-1.guess"), &peer("192.0.2.2")).await;
    assert!(matches!(elsewhere, Err(Refusal::Wrong)), "another address has its own count");
    assert_eq!(network("2001:db8::1:2:3:4".parse().unwrap()), network("2001:db8::9".parse().unwrap()));
}

#[tokio::test]
async fn a_verified_token_is_not_hashed_again() {
    let (gate, token) = gate(&[Scope::Read], None);
    let headers = bearer(&token);
    let first = Stopwatch::start();
    admit(&gate, Scope::Read, &headers).await.unwrap();
    let first = first.elapsed();
    let hundred = Stopwatch::start();
    for _ in 0..100 {
        admit(&gate, Scope::Read, &headers).await.unwrap();
    }
    assert!(hundred.elapsed() < first * 10, "{:?} for 100 after {first:?} for one", hundred.elapsed());
}

#[tokio::test]
async fn a_credential_that_is_withdrawn_or_renewed_ends_its_old_token_at_once() {
    let (gate, token) = gate(&[Scope::Read], None);
    admit(&gate, Scope::Read, &bearer(&token)).await.unwrap();
    let renewed = token::new_token("ra-1").unwrap();
    let credential =
        Credential { name: "ra-1".into(), hash: renewed.hash, scopes: [Scope::Read].into(), rate: None };
    gate.replace(Some(Credentials { credentials: vec![credential], webhooks: Vec::new() }));
    assert_eq!(admit(&gate, Scope::Read, &bearer(&token)).await, Err(401));
    assert!(admit(&gate, Scope::Read, &bearer(renewed.token.expose_secret())).await.is_ok());
}

#[tokio::test]
async fn the_rate_of_a_credential_is_kept() {
    let (gate, token) = gate(&[Scope::Read], Some(3));
    let headers = bearer(&token);
    for _ in 0..3 {
        admit(&gate, Scope::Read, &headers).await.unwrap();
    }
    assert_eq!(admit(&gate, Scope::Read, &headers).await, Err(429));
    let refusal = gate.admit(Scope::Read, &Method::GET, &headers, &peer("::1")).await.unwrap_err();
    let response = refusal.into_response();
    let wait: u64 = response.headers()[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((1..=21).contains(&wait), "{wait}");
}

#[tokio::test]
async fn a_password_may_look_but_not_change() {
    let (gate, token) = gate(&[Scope::Admin], None);
    let pair = STANDARD.encode(format!("me:{token}"));
    let headers: HeaderMap =
        [(header::AUTHORIZATION, format!("Basic {pair}").parse().unwrap())].into_iter().collect();
    gate.admit(Scope::Read, &Method::GET, &headers, &peer("::1")).await.unwrap();
    assert_eq!(admit(&gate, Scope::Revoke, &headers).await, Err(401));
}

#[tokio::test]
async fn an_open_gate_lets_programs_through_and_pages_of_others_not() {
    let gate = Gate::new(None, false).unwrap();
    let host = |name: &str| [(header::HOST, name.parse().unwrap())].into_iter().collect::<HeaderMap>();
    let caller = admit(&gate, Scope::Admin, &host("127.0.0.1:8890")).await.unwrap();
    assert_eq!((caller.name(), caller.actor.as_str()), ("", "anybody from 192.0.2.1"));
    assert_eq!(admit(&gate, Scope::Read, &host("rebound.example")).await, Err(403));
}
