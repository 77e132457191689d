//! An issuer with a responder key in a SoftHSM token, and a store: what signs ahead, put together as the
//! program does it.

#![allow(dead_code, reason = "each measurement takes of it what it needs")]

use std::fs;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use goodstanding::app::App;
use goodstanding::app::settings::{IssuerSettings, ResponderSettings, Settings};
use goodstanding::clock::SystemClock;
use goodstanding::ocsp::KeyAlgorithm;
use goodstanding::ocsp::issue::RequestInfo;
use goodstanding::presign::identity::Identities;
use goodstanding::presign::pipeline::{self, Pipeline};
use goodstanding::signer::{self, KeyReference, Lane, Order, Signer, admin};
use goodstanding::store::IssuerId;

use crate::pki::Ca;
use crate::token::Place;

pub(crate) const SESSIONS: u16 = 2;
const ISSUER: &str = "bench";

/// What signs ahead.
pub(crate) struct Site {
    pub(crate) app: App,
    pub(crate) issuer: IssuerId,
    pub(crate) pipeline: Pipeline,
    pub(crate) token: signer::Settings,
    pub(crate) key: KeyReference,
}

impl Site {
    /// Makes a key of this name and kind, and a store of this name. `cap` is how many signatures a second
    /// the pool may ask of the token, `session_keys` whether its sessions sign with copies of the key.
    pub(crate) async fn set(
        place: &Place,
        name: &str,
        kind: KeyAlgorithm,
        cap: Option<u32>,
        session_keys: bool,
    ) -> Self {
        let clock = SystemClock::shared();
        let now = clock.now();
        let ca = Ca::new();
        let mut token = place.settings(SESSIONS);
        let key = KeyReference::Label(name.to_owned());
        let public = admin::generate_key(&token, name, name.as_bytes(), kind).unwrap();
        let algorithm = kind.default_signature();
        let request = RequestInfo::new("CN=ocsp,O=Bench", &public.spki).unwrap();
        let requesting = Signer::start(token.clone()).await.unwrap();
        let prepared = requesting.prepare_key(key.clone(), algorithm, public.key).await.unwrap();
        let signature = requesting
            .sign(&prepared, request.der().to_vec().into(), Order::at_once(Lane::First))
            .await
            .unwrap();
        assert!(requesting.stop(Duration::from_secs(10)).await);
        token.max_rate = cap.and_then(NonZeroU32::new);
        token.session_keys = session_keys;

        let files = [
            ("ca", ca.issuer.certificate().der().to_vec()),
            ("responder", ca.certify(&request.signed(algorithm, &signature), now)),
        ];
        let [certificate, responder] = files.map(|(what, der)| {
            let path = place.0.join(format!("{name}-{what}.der"));
            fs::write(&path, der).unwrap();
            path
        });
        let settings = Settings {
            store_url: format!("sqlite://{}", place.0.join(format!("{name}.db")).display()),
            tokens: vec![token.clone()],
            issuers: vec![IssuerSettings {
                name: ISSUER.to_owned(),
                certificate,
                cert_id_hashes: IssuerSettings::default_hashes(),
                freshness: None,
                history: Duration::ZERO,
                crl_url: None,
                responders: vec![ResponderSettings {
                    token: token.name.clone(),
                    key: key.clone(),
                    certificate: responder,
                    algorithm: Some(algorithm),
                    from: None,
                }],
            }],
            ..Settings::default()
        };
        let app = App::open(settings, clock).await.unwrap();
        let problems = app.install_configured().await.unwrap();
        assert!(problems.is_empty(), "{problems:?}");
        let (identities, problems) = app.identities(&[]).await.unwrap();
        assert!(problems.is_empty() && identities.len() == 1, "{problems:?}");
        let pipeline = Pipeline {
            store: Arc::clone(&app.store),
            identities: Arc::new(Identities::new(identities)),
            clock: Arc::clone(&app.clock),
            policies: Arc::new(ArcSwap::from_pointee(app.policies().await.unwrap())),
            settings: pipeline::Settings::default(),
            levers: Arc::default(),
        };
        let issuer = app.issuer(ISSUER).await.unwrap().record.id;
        Self { app, issuer, pipeline, token, key }
    }
}
