//! Tests of the vocabulary: what is written is read, and what is not whole is no record.

use super::*;

/// At least one line of every verb, and of every word that a field may have.
fn every_kind() -> Vec<Record> {
    let (session, instance) = (Session([7; 16]), Instance([0xfe; 16]));
    let campaign = || "lowest-1.a_b".to_owned();
    let refused =
        vec![Refused { from: 3, to: 5, reason: Reason::Ended }, Refused { from: 7, to: 7, reason: Reason::Gone }];
    let mut records = vec![
        Record::Begin { session, instance: Some(instance) },
        Record::Begin { session, instance: None },
        Record::Resumed { instance: Some(instance), through: 4 },
        Record::Forgotten { instance: None },
        Record::Grant { lease: 1 << 40, campaign: campaign(), task: 12, first: 3, runs: 2 },
        Record::Lost { lease: 9 },
        Record::UntilDone,
        Record::Settled { campaign: campaign(), finished: true },
        Record::Closing,
        Record::Closed { goodbye: false },
        Record::Left,
        Record::OriginOpen { connection: 3, campaign: campaign() },
        Record::OriginSend { connection: 3, done: vec![] },
        Record::OriginSend { connection: 3, done: vec![Units { task: 1, units: 2 }, Units { task: 3, units: 4 }] },
        Record::OriginEnd { connection: 3 },
        Record::Look,
        Record::Count { campaign: campaign(), task: 1, done: 2, extra: 3, leased: 4, quarantined: true },
        Record::Looked,
        Record::Durable { session, through: 7 },
        Record::Out { session, through: 7, refused: refused.clone() },
        Record::Expired { lease: 9 },
        Record::Dropped { lease: 9 },
        Record::DroppedSession { session },
        Record::KilledServer,
        Record::PowerCut { mode: "drop-all".to_owned() },
        Record::DiskFailed,
        Record::EndedServer { code: Some(-1) },
        Record::EndedServer { code: None },
        Record::KilledClient { who: 3 },
        Record::Frozen { who: 3 },
        Record::Thawed { who: 3 },
        Record::ClockStalled { milliseconds: 1_500 },
        Record::Damaged { what: "meta".to_owned() },
        Record::Hostile,
        Record::Unhostile,
        Record::Upgraded { to: "format-2".to_owned() },
        Record::NewDirectory,
        Record::Boot { instance },
        Record::RefusedStart { reason: "damage".to_owned() },
        Record::Ready,
        Record::Dumped { digest: "9c2e".to_owned() },
        Record::Time { milliseconds: 5 },
        Record::Calm,
        Record::End,
        Record::Row { row: Row::Returned { campaign: 1, task: 2, word: 3, runs: u64::MAX } },
        Record::Row { row: Row::Session { session, origin: true, through: 9, confirmed: 4, refused } },
    ];
    for (kind, lease_ms) in Kind::ALL.iter().zip([Some(200), None]) {
        let (timeout_ms, errors_max, losses_max) = (lease_ms, lease_ms.map(|_| 3), lease_ms.map(|_| 4));
        records.push(Record::Create {
            campaign: campaign(),
            tasks: 60,
            quota: 10,
            kind: *kind,
            lease_ms,
            timeout_ms,
            errors_max,
            losses_max,
        });
    }
    for what in [Sent::Done { runs: 2 }, Sent::Mixed { done: u64::MAX, failed: 0 }, Sent::Release] {
        records.push(Record::Send { number: 17, lease: 9, what });
    }
    for heard in [Heard::Counted, Heard::Unknown] {
        records.push(Record::Ack { number: 17, heard });
        records.push(Record::Again { number: 17, heard });
    }
    for reason in Reason::ALL {
        records.push(Record::Ack { number: 17, heard: Heard::Refused { reason: *reason } });
        records.push(Record::Fate { session, number: 17, fate: Fate::Refused { reason: *reason } });
    }
    for fate in [Fate::Counted, Fate::Confirmed, Fate::NotReceived, Fate::UnknownSession] {
        records.push(Record::Fate { session, number: 17, fate });
    }
    for answer in [Origin::Task { task: 4 }, Origin::Settled, Origin::Wait] {
        records.push(Record::OriginAnswer { connection: 3, answer });
    }
    for change in Change::ALL {
        records.push(Record::Ask { campaign: campaign(), change: *change });
        records.push(Record::Done { campaign: campaign(), change: *change });
    }
    records.extend(Setting::ALL.iter().map(|setting| Record::Set { setting: *setting, value: u64::MAX }));
    records.extend(Standing::ALL.iter().map(|standing| Record::Status {
        campaign: campaign(),
        standing: *standing,
        done: 1,
        extra: 2,
    }));
    records.extend(Moment::ALL.iter().map(|moment| Record::Dump { moment: *moment }));
    records.extend(When::ALL.iter().map(|when| Record::Usage { when: *when, memory: 1, descriptors: 2 }));
    for phase in Phase::ALL {
        let row = Row::Campaign { id: 1, name: campaign(), tasks: 3, quota: 4, kind: Kind::Counted, phase: *phase };
        records.push(Record::Row { row });
    }
    for state in State::ALL {
        let row = Row::Lease { lease: 9, session, campaign: 1, task: 2, first: 3, runs: 4, own: 5, state: *state };
        records.push(Record::Row { row });
    }
    let counts = |quarantined| Row::Task {
        campaign: 1,
        task: 2,
        done: 3,
        extra: 4,
        issued: 5,
        leased: 6,
        failed: 7,
        lost: 8,
        quarantined,
    };
    records.extend([true, false].map(|quarantined| Record::Row { row: counts(quarantined) }));
    records
}

#[test]
fn what_is_written_is_read() {
    let mut history = History::default();
    for who in [TEST, 3] {
        for record in every_kind() {
            history.push(who, record);
        }
    }
    let read = History::parse(&history.to_string());
    assert_eq!((read.unreadable, read.cut), (vec![], vec![]));
    let of = |history: &[Line]| history.iter().map(|line| (line.who, line.record.clone())).collect::<Vec<_>>();
    assert_eq!(of(&read.lines), of(&history.lines));
}

#[test]
fn a_cut_record_is_none() {
    let whole = Record::Ack { number: 1, heard: Heard::Counted };
    for record in every_kind() {
        let cut = line(3, &record);
        for end in 2..cut.len() {
            let text = format!("{}{}{}", line(2, &whole), &cut[..end], line(4, &whole));
            let history = History::parse(&text);
            let read: Vec<_> = history.lines.into_iter().map(|line| (line.who, line.record)).collect();
            assert_eq!(read, [(2, whole.clone()), (4, whole.clone())], "{cut:?} cut at {end}");
            assert_eq!((history.unreadable, history.cut), (vec![], vec![3]), "{cut:?} cut at {end}");
        }
    }
}

#[test]
fn what_is_no_record_is_reported_with_its_place() {
    // Every single character of every record in place of others: either another record or reported, never a panic.
    for record in every_kind() {
        let right = line(3, &record);
        for position in 1..right.len() {
            for other in ["", " ", "x", "9", "-", "\u{e9}", "  ", "18446744073709551616"] {
                let wrong = format!("{}{other}{}", &right[..position], &right[position + 1..]);
                let history = History::parse(&wrong);
                let heard = history.lines.len() + history.unreadable.len() + history.cut.len();
                assert_eq!(heard, 1, "{wrong:?}");
            }
        }
    }
    for text in
        ["3 send 1 2 done .", "3 send 1 2 done 3 4 .", "x end .", " .", "3 .", "3  end .", "3 end  .", "3 begin 01 - ."]
    {
        let history = History::parse(&format!("0 end .\n{text}\n1 look ."));
        assert_eq!((history.lines.len(), history.unreadable), (2, vec![(2, text.to_owned())]));
    }
    assert_eq!(History::parse(""), History::default());
}
