//! The checker, checked: a right history to which every rule applies passes, and each planted violation is seen as that
//! rule and no other.
//!
//! `@1` stands for a session, `#a` for a data directory. A plant puts other lines in the place of some; `3|line` is the
//! third line that says so.

use std::collections::BTreeSet;

use crate::history::History;
use crate::rules::Rule::{self, *};
use crate::{Checker, Report, check};

/// The state after the first kill.
const STATE: &str = "
0 row campaign 1 c 1 3 counted running
0 row campaign 2 n 1 2 numbered running
0 row campaign 3 e 1 1 counted running
0 row campaign 4 o 1 2 counted running
0 row campaign 5 r 1 1 numbered running
0 row task 1 0 2 0 0 0 0 0 false
0 row task 2 0 0 0 2 2 0 0 false
0 row task 5 0 0 0 1 1 0 0 false
0 row lease 30 @3 2 0 0 2 3 live
0 row lease 40 @4 5 0 0 1 1 live
0 row session @1 false 2 0 0
0 row session @3 false 0 0 0
0 row session @4 false 0 0 0";

/// Client 1 works on `c` and is killed with request 2 unanswered but counted; client 2 finishes `c`, late and with more than
/// it was lent, fails at `e`, which is set aside, has a report of a forgotten lease refused, and takes over what client 4
/// held when it was killed; client 3 works on `n` across kills; a connection of the origin's works on `o`; clients 8 and 9
/// are of another data directory, where 9 was lent something that nobody will ever be lent again.
const RIGHT: &str = "
0 set requests-complete 1
0 set expiries 1
0 set relend-ms 100
0 set answer-ms 1000
0 set memory-bytes 10
0 set descriptors 2
0 boot #z
0 ready
8 begin @8 #z
0 create z 1 1 counted 200 - - -
0 done z create
9 begin @9 #z
9 grant 90 z 0 0 1
0 killed-server
0 new-directory
0 boot #a
0 ready
8 forgotten #a
0 usage before 100 10
0 time 0
0 create c 1 3 counted 200 - - -
0 done c create
0 create n 1 2 numbered - - - -
0 done n create
0 create e 1 1 counted 200 - 1 -
0 done e create
0 create o 1 2 counted 200 - - -
0 done o create
0 create r 1 1 numbered 200 - - -
0 done r create
0 create gone 1 1 counted 200 - - -
0 done gone create
0 ask gone remove
0 done gone remove
2 until-done
3 until-done
1 begin @1 #a
2 begin @2 #a
3 begin @3 #a
4 begin @4 #a
1 grant 10 c 0 0 1
1 grant 11 c 0 0 1
3 grant 30 n 0 0 2
4 grant 40 r 0 0 1
1 send 1 10 done 1
0 durable @1 1
0 out @1 1 0
1 ack 1 counted
1 send 2 11 done 1
0 durable @1 2
9 look
9 status c open 2 0
9 status n open 0 0
9 count c 0 2 0 0 false
9 count n 0 0 0 2 false
9 looked
0 killed-client 1
0 killed-server
0 boot #a
0 dump recovered{state}
0 dumped d1
0 dump again{state}
0 dumped d1
0 damaged meta
0 refused-start damage
0 dump recovered{state}
0 dumped d1
0 upgraded next
0 dump recovered{state}
0 dumped d1
0 ready
0 hostile
0 unhostile
0 dump working{state}
0 dumped d1
0 disk-failed
0 ended-server 1
0 boot #a
0 ready
3 resumed #a 0
0 time 10
0 killed-client 4
0 killed-client 9
0 calm
0 time 20
2 grant 20 c 0 0 1
0 expired 20
2 lost 20
2 send 1 20 done 2
0 durable @2 1
0 out @2 1 0
2 ack 1 counted
2 again 1 counted
2 settled c true
2 grant 21 e 0 0 1
2 send 2 21 mixed 0 1
0 durable @2 2
0 out @2 2 0
2 ack 2 counted
2 settled e false
2 grant 22 o 0 0 1
0 expired 22
0 dropped 22
2 send 3 22 done 1
0 durable @2 3
0 out @2 3 1 3 3 ended
2 ack 3 refused ended
0 origin-open 1 o
0 origin-send 1 0
0 origin-answer 1 task 0
0 origin-send 1 1 0 1
0 origin-answer 1 wait
0 origin-send 1 1 0 1
0 origin-answer 1 task 0
0 origin-send 1 1 0 1
0 origin-answer 1 settled
0 origin-end 1
0 expired 40
2 grant 23 r 0 0 1
0 time 400
2 send 4 23 done 1
0 time 410
0 durable @2 4
0 out @2 4 1 3 3 ended
2 ack 4 counted
2 closing
2 closed true
3 send 1 30 mixed 3 0
0 durable @3 1
0 out @3 1 0
3 ack 1 counted
3 settled n true
3 closing
3 closed true
8 settled n true
8 left
0 usage after 105 11
0 look
0 status c finished 3 1
0 status n finished 2 0
0 status e settled 0 0
0 count c 0 3 1 0 false
0 count n 0 2 0 0 false
0 count e 0 0 0 0 true
0 count o 0 2 0 0 false
0 count r 0 1 0 0 false
0 looked
0 dump rest
0 row campaign 1 c 1 3 counted running
0 row campaign 2 n 1 2 numbered running
0 row campaign 3 e 1 1 counted running
0 row campaign 4 o 1 2 counted running
0 row campaign 5 r 1 1 numbered running
0 row task 1 0 3 1 0 0 0 1 false
0 row task 2 0 2 0 2 0 0 0 false
0 row task 3 0 0 0 0 0 1 0 true
0 row task 4 0 2 0 0 0 0 1 false
0 row task 5 0 1 0 1 0 0 1 false
0 row lease 40 @4 5 0 0 1 0 expired
0 row session @1 false 2 0 0
0 row session @4 false 0 0 0
0 dumped d9
0 fate @1 2 counted
0 end";

type Edit = (&'static str, &'static [&'static str]);

/// Every rule has at least one.
const PLANTS: &[(Rule, &[Edit])] = &[
    // ---- the history itself
    (Sound, &[("8 left", &["8 left", "7 looked"])]),
    (Sound, &[("1 ack 1 counted", &["1 ack 1 counted", "1 ack 1 counted"])]),
    (Sound, &[("1 ack 1 counted", &["1 ack 1 counted", "1 ack 7 counted"])]),
    (Sound, &[("1 send 2 11 done 1", &["1 send 2 11 done 1", "1 send 1 11 done 1"])]),
    (Sound, &[("3 settled n true", &["3 settled n true", "3 send 2 40 done 1"])]),
    (Sound, &[("4 begin @4 #a", &["4 begin @4 #a", "7 grant 70 c 0 0 1"])]),
    (Sound, &[("0 origin-end 1", &["0 origin-end 1", "0 origin-send 1 0"])]),
    (Sound, &[("0 time 400", &["0 time 400", "0 time 399"])]),
    // ---- S1: what was acked is there
    (S1, &[("1|0 row session @1 false 2 0 0", &[])]),
    (S1, &[("2|0 row campaign 2 n 1 2 numbered running", &["0 row campaign 2 n 1 2 numbered paused"])]),
    (S1, &[("5|0 row campaign 3 e 1 1 counted running", &[])]),
    (S1, &[("5|0 row campaign 3 e 1 1 counted running", &["0 row campaign 3 e 1 2 counted running"])]),
    (
        S1,
        &[
            ("9 look", &[]),
            ("9 status c open 2 0", &[]),
            ("9 status n open 0 0", &[]),
            ("9 count c 0 2 0 0 false", &[]),
            ("9 count n 0 0 0 2 false", &[]),
            ("9 looked", &[]),
            ("1|0 row task 1 0 2 0 0 0 0 0 false", &["0 row task 1 0 0 0 0 0 0 0 false"]),
        ],
    ),
    // ---- S2: nothing is invented
    (S2, &[("5|0 row task 1 0 2 0 0 0 0 0 false", &["0 row task 1 0 3 0 0 0 0 0 false"])]),
    (S2, &[("5|0 row task 1 0 2 0 0 0 0 0 false", &["0 row task 1 0 2 0 0 0 1 0 false"])]),
    (S2, &[("5|0 row session @3 false 0 0 0", &["0 row session @3 false 1 0 0"])]),
    (
        S2,
        &[(
            "0 row task 1 0 3 1 0 0 0 1 false",
            &["0 row campaign 6 x 1 1 counted running", "0 row task 1 0 3 1 0 0 0 1 false"],
        )],
    ),
    (S2, &[("9 count c 0 2 0 0 false", &["9 count c 0 2 0 0 false", "9 status n open 1 0"])]),
    (
        S2,
        &[
            ("0 count c 0 3 1 0 false", &["0 count c 0 3 2 0 false"]),
            ("0 row task 1 0 3 1 0 0 0 1 false", &["0 row task 1 0 3 2 0 0 0 1 false"]),
        ],
    ),
    // ---- S3: exactly what is durable
    (
        S3,
        &[
            ("5|0 row session @1 false 2 0 0", &["0 row session @1 false 1 0 0", "0 row lease 11 @1 1 0 0 1 0 live"]),
            ("5|0 row task 1 0 2 0 0 0 0 0 false", &["0 row task 1 0 2 0 0 1 0 0 false"]),
        ],
    ),
    (S3, &[("0 fate @1 2 counted", &["0 fate @1 2 not-received"])]),
    (
        S3,
        &[
            ("5|0 row session @1 false 2 0 0", &["0 row session @1 false 2 0 1 2 2 gone"]),
            ("0 create c 1 3 counted 200 - - -", &["0 create c 1 3 counted 200 - - -", "0 ask c remove"]),
        ],
    ),
    // ---- S4: synced first
    (S4, &[("0 durable @2 1", &[])]),
    (S4, &[("0 durable @3 1", &[]), ("0 out @3 1 0", &[])]),
    // ---- S5: the same answer
    (S5, &[("2 again 1 counted", &["2 again 1 refused ended"])]),
    (S5, &[("0 out @2 4 1 3 3 ended", &["0 out @2 4 1 3 3 not-held"])]),
    (S5, &[("0 out @2 4 1 3 3 ended", &["0 out @2 4 2 2 2 ended 3 3 ended"])]),
    (
        S5,
        &[
            ("2 ack 3 refused ended", &[]),
            ("0 out @2 4 1 3 3 ended", &["0 out @2 4 0"]),
            ("2 ack 4 counted", &["2 ack 3 refused ended", "2 ack 4 counted"]),
        ],
    ),
    (S5, &[("2 ack 2 counted", &["2 ack 2 unknown"])]),
    (S5, &[("0 fate @1 2 counted", &["0 fate @1 2 counted", "0 fate @1 1 not-received"])]),
    (S5, &[("0 fate @1 2 counted", &["0 fate @1 2 counted", "0 fate @1 1 unknown-session"])]),
    (S5, &[("2 again 1 counted", &["2 resumed #a 0"])]),
    (S5, &[("3 resumed #a 0", &["3 forgotten #a"])]),
    (S5, &[("5|0 row session @1 false 2 0 0", &["0 row session @1 false 2 0 1 1 1 ended"])]),
    // ---- S6: nothing falls
    (S6, &[("9 looked", &["9 looked", "9 look", "9 count c 0 1 0 0 false", "9 looked"])]),
    (S6, &[("9 looked", &["9 looked", "9 look", "9 status c open 1 0", "9 looked"])]),
    // ---- S7: an observer sees what was acked
    (S7, &[("9 count c 0 2 0 0 false", &["9 count c 0 0 0 0 false"])]),
    (S7, &[("9 status c open 2 0", &["9 status c open 0 0"])]),
    // ---- S8: one holder
    (S8, &[("2 grant 20 c 0 0 1", &["2 grant 20 c 0 0 1", "2 grant 10 c 0 0 1"])]),
    (S8, &[("3 resumed #a 0", &["3 resumed #a 0", "3 grant 41 r 0 0 1"])]),
    (S8, &[("2 lost 20", &["2 lost 20", "2 grant 31 n 0 1 1"])]),
    (
        S8,
        &[
            (
                "0 row lease 40 @4 5 0 0 1 0 expired",
                &[
                    "0 row lease 41 @4 5 0 0 1 1 live",
                    "0 row lease 42 @4 5 0 0 1 1 live",
                    "0 row lease 40 @4 5 0 0 1 0 expired",
                ],
            ),
            ("0 row task 5 0 1 0 1 0 0 1 false", &["0 row task 5 0 1 0 3 2 0 1 false"]),
            ("0 create r 1 1 numbered 200 - - -", &["0 create r 1 3 numbered 200 - - -"]),
            ("1|0 row campaign 5 r 1 1 numbered running", &["0 row campaign 5 r 1 3 numbered running"]),
            ("2|0 row campaign 5 r 1 1 numbered running", &["0 row campaign 5 r 1 3 numbered running"]),
            ("3|0 row campaign 5 r 1 1 numbered running", &["0 row campaign 5 r 1 3 numbered running"]),
            ("4|0 row campaign 5 r 1 1 numbered running", &["0 row campaign 5 r 1 3 numbered running"]),
            ("5|0 row campaign 5 r 1 1 numbered running", &["0 row campaign 5 r 1 3 numbered running"]),
            ("6|0 row campaign 5 r 1 1 numbered running", &["0 row campaign 5 r 1 3 numbered running"]),
            ("0 count r 0 1 0 0 false", &[]),
        ],
    ),
    // ---- S9: documented fates
    (
        S9,
        &[
            ("0 out @2 3 1 3 3 ended", &["0 out @2 3 1 3 3 not-held"]),
            ("2 ack 3 refused ended", &["2 ack 3 refused not-held"]),
            ("0 out @2 4 1 3 3 ended", &["0 out @2 4 1 3 3 not-held"]),
        ],
    ),
    (S9, &[("0 dropped 22", &[])]),
    (
        S9,
        &[
            ("0 out @2 3 1 3 3 ended", &["0 out @2 3 1 3 3 gone"]),
            ("2 ack 3 refused ended", &["2 ack 3 refused gone"]),
            ("0 out @2 4 1 3 3 ended", &["0 out @2 4 1 3 3 gone"]),
        ],
    ),
    (
        S9,
        &[
            ("0 out @2 3 1 3 3 ended", &["0 out @2 3 1 3 3 bad-runs"]),
            ("2 ack 3 refused ended", &["2 ack 3 refused bad-runs"]),
            ("0 out @2 4 1 3 3 ended", &["0 out @2 4 1 3 3 bad-runs"]),
        ],
    ),
    (
        S9,
        &[
            ("2 send 2 21 mixed 0 1", &["2 send 2 21 mixed 0 2"]),
            ("0 count e 0 0 0 0 true", &[]),
            ("2 settled e false", &[]),
            ("0 status e settled 0 0", &[]),
            ("0 row task 3 0 0 0 0 0 1 0 true", &[]),
        ],
    ),
    // ---- S10: leases survive
    (
        S10,
        &[
            ("1|0 row lease 30 @3 2 0 0 2 3 live", &["0 row returned 2 0 0 3"]),
            ("1|0 row task 2 0 0 0 2 2 0 0 false", &["0 row task 2 0 0 0 2 0 0 0 false"]),
        ],
    ),
    (
        S10,
        &[
            ("1|0 row lease 40 @4 5 0 0 1 1 live", &["0 row lease 40 @4 5 0 0 1 0 expired", "0 row returned 5 0 0 1"]),
            ("1|0 row task 5 0 0 0 1 1 0 0 false", &["0 row task 5 0 0 0 1 0 0 0 false"]),
        ],
    ),
    (S10, &[("1|0 row lease 40 @4 5 0 0 1 1 live", &["0 row lease 40 @3 5 0 0 1 1 live"])]),
    (S10, &[("3 resumed #a 0", &["3 resumed #a 0", "3 lost 30"])]),
    (S10, &[("9 count n 0 0 0 2 false", &["9 count n 0 0 0 1 false"])]),
    // ---- S11: finished and settled
    (S11, &[("9 status c open 2 0", &["9 status c finished 2 0"])]),
    (S11, &[("9 status n open 0 0", &["9 status n settled 0 0"])]),
    (S11, &[("2 lost 20", &["2 lost 20", "2 settled c true"])]),
    (S11, &[("2 settled c true", &["2 settled c false"])]),
    (S11, &[("2 settled c true", &["2 settled nobody true"])]),
    (
        S11,
        &[(
            "1|0 origin-answer 1 task 0",
            &["0 origin-answer 1 settled", "0 origin-send 1 0", "0 origin-answer 1 task 0"],
        )],
    ),
    (S11, &[("0 count e 0 0 0 0 true", &["0 count e 0 0 0 0 false"]), ("0 calm", &[])]),
    // ---- S12: explained overshoot
    (
        S12,
        &[
            ("2 grant 20 c 0 0 1", &["2 grant 20 c 0 0 2"]),
            ("0 row task 1 0 3 1 0 0 0 1 false", &["0 row task 1 0 3 1 0 0 0 0 false"]),
        ],
    ),
    // ---- S13: balanced books
    (S13, &[("0 row task 2 0 2 0 2 0 0 0 false", &["0 row task 2 0 2 0 1 0 0 0 false"])]),
    (S13, &[("5|0 row task 2 0 0 0 2 2 0 0 false", &["0 row task 2 0 0 0 2 1 0 0 false"])]),
    (S13, &[("6|0 row session @4 false 0 0 0", &[])]),
    (S13, &[("0 row lease 40 @4 5 0 0 1 0 expired", &["0 row lease 40 @4 5 0 0 1 1 expired"])]),
    (
        S13,
        &[(
            "0 row task 3 0 0 0 0 0 1 0 true",
            &["0 row task 3 0 0 0 0 0 1 0 true", "0 row task 9 0 0 0 0 0 0 0 false"],
        )],
    ),
    (S13, &[("9 count c 0 2 0 0 false", &["9 count c 0 1 1 0 false"])]),
    // ---- whole states
    (
        S14,
        &[
            ("2|0 dumped d1", &["0 dumped d2"]),
            ("3|0 dumped d1", &["0 dumped d2"]),
            ("4|0 dumped d1", &["0 dumped d2"]),
            ("5|0 dumped d1", &["0 dumped d2"]),
        ],
    ),
    (
        S16,
        &[
            ("3|0 dumped d1", &["0 dumped d2"]),
            ("4|0 dumped d1", &["0 dumped d2"]),
            ("5|0 dumped d1", &["0 dumped d2"]),
        ],
    ),
    (S17, &[("4|0 dumped d1", &["0 dumped d2"]), ("5|0 dumped d1", &["0 dumped d2"])]),
    (S18, &[("5|0 dumped d1", &["0 dumped d2"])]),
    // ---- S15: silence after a failure
    (S15, &[("0 disk-failed", &["0 disk-failed", "0 out @1 2 0"])]),
    (S15, &[("0 ended-server 1", &["0 ended-server 0"])]),
    (S15, &[("3 send 1 30 mixed 3 0", &["0 disk-failed", "3 send 1 30 mixed 3 0"]), ("0 out @3 1 0", &[])]),
    // ---- S19: one directory is not another
    (S19, &[("3 resumed #a 0", &["3 resumed #z 0"])]),
    (S19, &[("2|0 boot #a", &["0 boot #b"]), ("3|0 boot #a", &["0 boot #b"])]),
    (S19, &[("1|0 boot #a", &["0 boot #z"]), ("2|0 boot #a", &[]), ("3|0 boot #a", &[])]),
    (S19, &[("5|0 row session @1 false 2 0 0", &["0 row session @1 false 2 0 0", "0 row session @8 false 0 0 0"])]),
    (
        S19,
        &[
            ("8 begin @8 #z", &["0 create old 1 1 counted 200 - - -", "8 begin @8 #z", "8 grant 80 old 0 0 1"]),
            ("8 forgotten #a", &["8 send 1 80 done 1", "0 durable @8 1", "8 ack 1 counted"]),
        ],
    ),
    // ---- liveness
    (L1, &[("0 count e 0 0 0 0 true", &["0 count e 0 0 0 0 false"]), ("0 status e settled 0 0", &[])]),
    (L2, &[("3 ack 1 counted", &[])]),
    (L3, &[("3 closed true", &[])]),
    (L4, &[("2 grant 23 r 0 0 1", &["0 time 400", "2 grant 23 r 0 0 1"])]),
    (L5, &[("0 usage after 105 11", &["0 usage after 111 11"])]),
    (L5, &[("0 usage after 105 11", &["0 usage after 105 13"])]),
    (L6, &[("2 send 4 23 done 1", &["2 send 4 23 done 1", "0 time 500", "0 time 2000"]), ("0 time 410", &[])]),
    (L6, &[("2 ack 4 counted", &["0 time 500", "0 time 1410", "0 time 1411", "2 ack 4 counted"])]),
];

/// The right history with some lines put in place of others.
fn planted(edits: &[Edit]) -> String {
    let mut left: Vec<(usize, &str, &[&str])> = edits
        .iter()
        .map(|(old, new)| match old.split_once('|') {
            Some((place, old)) => (place.parse().unwrap(), old, *new),
            None => (0, *old, *new),
        })
        .collect();
    let right = RIGHT.replace("{state}", STATE);
    let mut lines: Vec<&str> = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for line in right.lines() {
        seen.push(line);
        let place = seen.iter().filter(|before| **before == line).count();
        let edit = left.iter().position(|(nth, old, _)| *old == line && (*nth == 0 || *nth == place));
        match edit {
            Some(edit) => lines.extend(left.remove(edit).2),
            None => lines.push(line),
        }
    }
    assert!(left.is_empty(), "these fit no line: {left:?}");
    lines.join("\n")
}

fn read(text: &str) -> History {
    let lines = text.lines().filter(|line| !line.is_empty());
    let whole: Vec<String> = lines.map(|line| format!("{} .", named(line))).collect();
    let history = History::parse(&whole.join("\n"));
    assert_eq!((&history.unreadable, &history.cut), (&vec![], &vec![]));
    history
}

/// Puts names in place of their signs.
fn named(line: &str) -> String {
    let word = |word: &str| match word.split_at_checked(1) {
        Some(("@", digit)) => digit.repeat(32),
        Some(("#", letter)) => if letter == "z" { "f" } else { letter }.repeat(32),
        _ => word.to_owned(),
    };
    line.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

fn report(edits: &[Edit]) -> Report {
    check(&read(&planted(edits)))
}

#[test]
fn a_right_history_passes_every_rule() {
    let report = report(&[]);
    assert_eq!(report.violations, []);
    assert_eq!(report.not_applied().collect::<Vec<_>>(), []);
    assert!(report.ended);
}

#[test]
fn every_planted_violation_is_seen_as_that_rule_and_no_other() {
    let mut wrong = Vec::new();
    for (rule, edits) in PLANTS {
        let report = report(edits);
        let found: BTreeSet<Rule> = report.violations.iter().map(|violation| violation.rule).collect();
        if found != BTreeSet::from([*rule]) {
            wrong.push(format!("{rule:?} planted by {edits:?}: {:#?}", report.violations));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_rule_has_a_planted_violation() {
    let planted: BTreeSet<Rule> = PLANTS.iter().map(|(rule, _)| *rule).collect();
    assert_eq!(planted, Rule::ALL.iter().copied().collect());
    assert!(Rule::ALL.iter().all(|rule| !rule.text().is_empty() && !rule.needs().is_empty()));
}

#[test]
fn a_history_may_end_anywhere() {
    let whole = read(&planted(&[]));
    let mut checker = Checker::new();
    for line in &whole.lines {
        let report = checker.clone().finish();
        assert_eq!((report.violations, report.ended), (vec![], false), "before line {}", line.at);
        checker.take(line);
    }
    assert!(checker.finish().ended);
}
