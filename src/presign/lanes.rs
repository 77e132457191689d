//! The pipelines of all lanes, fed as the engine decides.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::engine::{Engine, LANES};
use super::pipeline::{Outcome, Pipeline};
use crate::clock::UnixTime;
use crate::signer::Lane;
use crate::store::CertificateKey;

/// What the pipelines tell.
pub(super) type Outcomes = mpsc::Receiver<(Lane, Outcome)>;

/// Outcomes taken up before anything else is looked at.
pub(super) const OUTCOMES: usize = 500;

/// The sources of the pipelines. When they are dropped, the pipelines end what is under way.
pub(super) struct Lanes {
    sources: [Option<mpsc::Sender<CertificateKey>>; Lane::ALL.len()],
}

impl Lanes {
    /// The pipelines of an engine: where its jobs go, what comes of them, and the work itself, which
    /// ends when the sources are dropped and all outcomes are told.
    pub(super) fn open(
        pipeline: &Pipeline,
        engine: &Engine,
    ) -> (Self, Outcomes, impl Future<Output = ()> + use<>) {
        let pipeline = Arc::new(pipeline.clone());
        let (outcomes, told) = mpsc::channel(pipeline.settings.portion);
        let mut sources = [const { None }; Lane::ALL.len()];
        let runs = LANES.map(|lane| {
            let (source, keys) = mpsc::channel(engine.room());
            sources[lane.index()] = Some(source);
            let (pipeline, outcomes) = (Arc::clone(&pipeline), outcomes.clone());
            async move { pipeline.run(lane, keys, outcomes).await }
        });
        let work = async {
            let [revocation, first, refresh] = runs;
            tokio::join!(revocation, first, refresh);
        };
        (Self { sources }, told, work)
    }

    /// Sends what the engine would have signed at `now`, `most` certificates at the most. Returns how
    /// many there were.
    pub(super) fn feed(&self, engine: &mut Engine, now: UnixTime, most: usize) -> usize {
        for count in 0..most {
            let Some(job) = engine.take(now) else { return count };
            // The engine takes no more than there is room for; a pipeline that has ended is over.
            if let Some(source) = &self.sources[job.lane.index()]
                && source.try_send(job.key).is_err()
            {
                tracing::debug!(lane = job.lane.name(), "a pipeline takes no more");
                return count;
            }
        }
        most
    }
}
