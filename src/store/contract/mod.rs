//! The contract's tests, written once and stamped over every engine.

mod answers;
mod audit;
mod certificates;
mod feed;
mod fleet;
mod ledger;
mod model;
mod packs;
mod registry;
mod replies;
mod sharing;

use std::sync::Arc;

use async_trait::async_trait;
use tempfile::TempDir;

use super::*;
use crate::ocsp::CrlReason;

/// A database of an engine, made for one test.
#[async_trait]
trait Bed: Send + Sync {
    /// A new handle on it, as another process would have.
    async fn handle(&self) -> Arc<dyn Store>;
}

struct SqliteBed(TempDir);

impl SqliteBed {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

#[async_trait]
impl Bed for SqliteBed {
    async fn handle(&self) -> Arc<dyn Store> {
        open(&format!("sqlite://{}/contract.db", self.0.path().display())).await.unwrap()
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// The one list of tests, as `#[test]` functions over the engine whose beds `$bed` makes.
macro_rules! stamp {
    ($bed:expr; $($group:ident: $($name:ident)*;)*) => {
        $($(
            #[test]
            fn $name() {
                let bed = $bed;
                super::runtime().block_on(super::$group::$name(&bed));
            }
        )*)*

        #[test]
        fn any_sequence_of_calls_agrees_with_the_model() {
            super::model::any_sequence_of_calls_agrees_with_the_model(|| $bed);
        }
    };
}

macro_rules! contract_of {
    ($bed:expr) => {
        stamp! { $bed;
            registry:
                an_issuer_added_again_is_the_same_issuer
                a_name_or_certificate_that_is_taken_is_a_conflict
                a_responder_installed_again_keeps_its_number_and_takes_over_its_key
                a_responder_is_retired_and_taken_back_and_keeps_both_when_installed_again
                an_issuer_or_responder_that_is_missing_is_named_and_nothing_changes
                a_profile_replaces_that_of_the_same_token_algorithm_and_sessions;
            certificates:
                registering_again_changes_nothing
                registering_adds_what_was_not_known_and_takes_nothing_away
                a_serial_repeated_in_a_call_counts_as_registered_one_after_the_other
                the_same_serial_under_two_issuers_is_two_certificates
                serials_and_reasons_come_back_as_they_were
                a_long_list_is_registered_whole_and_paged_through_without_loss
                pages_are_by_row_and_leave_out_what_has_expired
                revocation_outcomes_come_in_order
                a_revocation_is_for_good_except_a_hold
                a_hold_can_be_taken_back
                keys_that_do_not_exist_are_left_out
                counts_tell_how_the_fleet_stands;
            answers:
                an_answer_is_stored_for_the_version_that_stands_only
                of_two_answers_for_one_version_the_later_stands
                answers_for_certificates_that_do_not_exist_are_dropped
                an_answer_comes_back_octet_for_octet
                an_answer_for_an_older_version_is_not_scheduled_by
                one_bad_answer_leaves_the_others_unstored
                a_long_list_of_answers_is_stored_whole;
            packs:
                a_pack_is_the_answer_of_each_of_its_certificates
                a_change_of_status_breaks_the_pack_and_announces_what_is_left_in_it
                a_pack_of_which_one_is_not_stored_is_broken_from_the_start
                a_certificate_with_another_answer_leaves_its_pack;
            fleet:
                a_fleet_is_counted_by_issuer_lifetime_day_and_revocation
                what_the_guard_knows_replaces_what_it_knew
                what_limiters_were_asked_for_adds_up;
            feed:
                another_handle_sees_what_changed_and_the_writer_does_not
                what_changes_nothing_is_not_announced
                issuers_and_responders_are_announced_as_registry
                a_reader_behind_the_pruned_part_sees_a_gap
                young_entries_outlive_a_pruning
                a_position_beyond_the_end_is_a_gap
                a_long_list_is_announced_whole;
            ledger:
                records_come_back_as_they_were_in_the_order_they_were_written
                an_append_behind_the_end_changes_nothing
                a_record_written_again_takes_its_own_place_at_a_later_position
                what_is_forgotten_is_gone_and_its_position_is_never_used_again
                writers_side_by_side_lose_nothing_and_write_nothing_twice
                a_long_append_is_written_whole
                the_ledger_of_a_closed_handle_gives_errors;
            audit:
                each_change_writes_one_line_and_what_changes_nothing_writes_none
                a_line_tells_who_acted_and_what_was_changed
                a_refused_call_leaves_no_line
                handles_that_write_together_make_one_chain_without_gaps
                a_portion_of_answers_is_one_line_a_token
                a_pruned_log_goes_on_from_its_checkpoint;
            replies:
                a_request_asked_again_gets_its_first_reply_for_a_day
                another_request_with_the_same_key_is_a_mismatch
                each_caller_has_keys_of_its_own
                of_requests_at_the_same_time_one_does_the_work
                a_request_that_was_given_up_or_whose_process_died_can_be_made_again;
            sharing:
                a_revocation_wins_every_race_with_an_answer_for_the_old_status
                two_handles_that_register_the_same_fleet_add_it_once
                everything_is_there_after_reopening
                a_closed_handle_gives_errors;
        }
    };
}

mod sqlite_engine {
    use super::SqliteBed;

    contract_of!(SqliteBed::new());
}

/// A store with one issuer.
async fn with_issuer(bed: &dyn Bed) -> (Arc<dyn Store>, IssuerId) {
    let store = bed.handle().await;
    let issuer = store.add_issuer("demo", b"its certificate").await.unwrap().id;
    (store, issuer)
}

async fn with_responder(store: &dyn Store, issuer: IssuerId) -> ResponderNumber {
    store.add_responder(&responder(issuer, "ocsp-1"), UnixTime(1_000)).await.unwrap().number
}

fn responder(issuer: IssuerId, key: &str) -> NewResponder {
    NewResponder {
        issuer,
        token: "hsm-a".to_owned(),
        key: key.to_owned(),
        algorithm: "rsa-sha256".to_owned(),
        certificate: b"a responder certificate".to_vec(),
        not_after: UnixTime(9_000),
        from: None,
    }
}

fn serial(number: u32) -> Serial {
    Serial::from_unsigned(&number.to_be_bytes()).unwrap()
}

const NOT_AFTER: UnixTime = UnixTime(5_000);

fn good(number: u32) -> CertificateEntry {
    CertificateEntry { serial: serial(number), not_before: None, not_after: NOT_AFTER, revocation: None }
}

fn revoked(time: i64, reason: CrlReason) -> Revocation {
    Revocation { time: UnixTime(time), reason: Some(reason) }
}

async fn record(store: &dyn Store, issuer: IssuerId, number: u32) -> CertificateRecord {
    store.certificate(issuer, &serial(number)).await.unwrap().unwrap().certificate
}

fn answer(certificate: &CertificateRecord, responder: ResponderNumber, this_update: i64) -> NewAnswer {
    NewAnswer {
        key: certificate.key,
        version: certificate.version,
        responder,
        this_update: UnixTime(this_update),
        next_update: UnixTime(this_update + 100),
        response_data: format!("data of {} at {this_update}", certificate.serial).into_bytes().into(),
        signature: vec![0xa5; 64].into(),
        packed: false,
    }
}
