use std::collections::BTreeMap;

use super::*;

fn made(id: i64, keep_until: i64) -> LedgerRecord {
    let entry = LedgerEntry::Registration(RegistrationEntry {
        at: UnixTime(id),
        ip: "2001:db8::1".parse().unwrap(),
        idempotency: Some(format!("registration {id}")),
    });
    LedgerRecord { id: LedgerId(id), keep_until: UnixTime(keep_until), entry }
}

fn order(id: i64, state: OrderState) -> LedgerRecord {
    let entry = LedgerEntry::Order(OrderEntry {
        at: UnixTime(7),
        account: "acct \"1\" é".to_owned(),
        identifiers: vec!["*.example.com".to_owned(), "192.0.2.1".to_owned()],
        idempotency: None,
        replaces: Some("aki.serial".to_owned()),
        renews: Some(LedgerId(3)),
        state,
    });
    LedgerRecord { id: LedgerId(id), keep_until: UnixTime(1_000), entry }
}

async fn all(ledger: &dyn Ledger) -> Vec<(LedgerPosition, LedgerRecord)> {
    ledger.ledger_after(LedgerPosition(0), u32::MAX).await.unwrap()
}

pub(super) async fn records_come_back_as_they_were_in_the_order_they_were_written(bed: &dyn Bed) {
    let ledger = bed.handle().await.ledger();
    assert_eq!(ledger.ledger_end().await.unwrap(), LedgerPosition(0));
    let records = [
        made(1, 50),
        order(2, OrderState::Reserved { expires: UnixTime(9) }),
        order(3, OrderState::Released { at: UnixTime(8), failed: vec!["192.0.2.1".to_owned()] }),
        order(
            4,
            OrderState::Issued {
                at: UnixTime(8),
                certificate: "demo/01".to_owned(),
                ari: Some("a.b".to_owned()),
                not_after: UnixTime(99),
            },
        ),
        LedgerRecord {
            id: LedgerId(5),
            keep_until: UnixTime(i64::MAX),
            entry: LedgerEntry::Override(OverrideEntry {
                at: UnixTime(1),
                limit: "certificates-per-domain".to_owned(),
                key: "example.com".to_owned(),
                tiers: vec!["0/7d".to_owned()],
                until: UnixTime(2),
                reason: "abuse".to_owned(),
                removed: true,
            }),
        },
    ];
    let written = ledger.ledger_append(LedgerPosition(0), &records).await.unwrap();
    assert_eq!(written, Appended::Done(LedgerPosition(5)));
    assert_eq!(ledger.ledger_end().await.unwrap(), LedgerPosition(5));
    let expected: Vec<_> = (1..).map(LedgerPosition).zip(records.clone()).collect();
    assert_eq!(all(&*bed.handle().await.ledger()).await, expected);
    let page = ledger.ledger_after(LedgerPosition(2), 2).await.unwrap();
    assert_eq!(page, expected[2..4]);
}

pub(super) async fn an_append_behind_the_end_changes_nothing(bed: &dyn Bed) {
    let (one, other) = (bed.handle().await.ledger(), bed.handle().await.ledger());
    one.ledger_append(LedgerPosition(0), &[made(1, 9)]).await.unwrap();
    for expected in [0, 2, -1] {
        let behind = other.ledger_append(LedgerPosition(expected), &[made(expected + 1, 9)]).await.unwrap();
        assert_eq!(behind, Appended::Behind(LedgerPosition(1)));
    }
    assert_eq!(all(&*one).await.len(), 1);
    let done = other.ledger_append(LedgerPosition(1), &[made(2, 9)]).await.unwrap();
    assert_eq!(done, Appended::Done(LedgerPosition(2)));
    let nothing = one.ledger_append(LedgerPosition(2), &[]).await.unwrap();
    assert_eq!(nothing, Appended::Done(LedgerPosition(2)));
}

pub(super) async fn a_record_written_again_takes_its_own_place_at_a_later_position(bed: &dyn Bed) {
    let ledger = bed.handle().await.ledger();
    ledger.ledger_append(LedgerPosition(0), &[made(1, 9), made(2, 9)]).await.unwrap();
    let changed = order(1, OrderState::Reserved { expires: UnixTime(9) });
    ledger.ledger_append(LedgerPosition(2), std::slice::from_ref(&changed)).await.unwrap();
    assert_eq!(all(&*ledger).await, [(LedgerPosition(2), made(2, 9)), (LedgerPosition(3), changed)]);
    let both = [made(4, 1), made(4, 2)];
    ledger.ledger_append(LedgerPosition(3), &both).await.unwrap();
    assert_eq!(ledger.ledger_after(LedgerPosition(3), 9).await.unwrap(), [(LedgerPosition(5), made(4, 2))]);
}

pub(super) async fn what_is_forgotten_is_gone_and_its_position_is_never_used_again(bed: &dyn Bed) {
    let ledger = bed.handle().await.ledger();
    ledger.ledger_append(LedgerPosition(0), &[made(1, 10), made(2, 11), made(3, 10)]).await.unwrap();
    let ids = [1, 2, 3, 4].map(LedgerId);
    assert_eq!(ledger.ledger_forget(&ids, UnixTime(9)).await.unwrap(), 0);
    assert_eq!(ledger.ledger_forget(&ids, UnixTime(10)).await.unwrap(), 2);
    assert_eq!(all(&*ledger).await, [(LedgerPosition(2), made(2, 11))]);
    assert_eq!(bed.handle().await.ledger().ledger_end().await.unwrap(), LedgerPosition(3));
    assert_eq!(
        ledger.ledger_append(LedgerPosition(3), &[made(4, 9)]).await.unwrap(),
        Appended::Done(LedgerPosition(4))
    );
}

pub(super) async fn writers_side_by_side_lose_nothing_and_write_nothing_twice(bed: &dyn Bed) {
    const EACH: i64 = 60;
    let writers = [bed.handle().await.ledger(), bed.handle().await.ledger(), bed.handle().await.ledger()];
    let mut tasks = tokio::task::JoinSet::new();
    for (writer, ledger) in (0..).zip(writers.clone()) {
        tasks.spawn(async move {
            let mut written = Vec::new();
            while (written.len() as i64) < EACH {
                let end = ledger.ledger_end().await.unwrap();
                let record = made(end.0 + 1, writer);
                if let Appended::Done(at) =
                    ledger.ledger_append(end, std::slice::from_ref(&record)).await.unwrap()
                {
                    written.push((at, record));
                }
            }
            written
        });
    }
    let told: BTreeMap<_, _> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(told.len() as i64, 3 * EACH);
    assert_eq!(all(&*writers[0]).await, told.into_iter().collect::<Vec<_>>());
}

pub(super) async fn a_long_append_is_written_whole(bed: &dyn Bed) {
    let ledger = bed.handle().await.ledger();
    let records: Vec<_> = (1..=1_300).map(|id| made(id, 9)).collect();
    ledger.ledger_append(LedgerPosition(0), &records).await.unwrap();
    let back: Vec<_> = all(&*ledger).await.into_iter().map(|(_, record)| record).collect();
    assert_eq!(back, records);
}

pub(super) async fn the_ledger_of_a_closed_handle_gives_errors(bed: &dyn Bed) {
    let store = bed.handle().await;
    let ledger = Arc::clone(&store).ledger();
    store.close().await;
    assert!(ledger.ledger_end().await.is_err());
    assert!(ledger.ledger_append(LedgerPosition(0), &[made(1, 9)]).await.is_err());
    assert!(ledger.ledger_after(LedgerPosition(0), 9).await.is_err());
    assert!(ledger.ledger_forget(&[LedgerId(1)], UnixTime(9)).await.is_err());
}
