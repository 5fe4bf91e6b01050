use super::*;

fn refused(text: &str) -> Vote {
    Vote::No(Refusal::Refused(text.to_owned()))
}

#[test]
fn votes_are_read() {
    assert_eq!(
        vote(b":17\r\n"),
        Voted {
            vote: Vote::Yes,
            now_ms: Some(17)
        }
    );
    let late = vote(b"*2\r\n$4\r\nlate\r\n:9\r\n");
    assert_eq!(
        late,
        Voted {
            vote: Vote::No(Refusal::Late),
            now_ms: Some(9)
        }
    );
    let seen = vote(b"*2\r\n$4\r\nseen\r\n$7\r\naborted\r\n").vote;
    assert_eq!(seen, Vote::No(Refusal::Seen(State::Aborted)));
    let held = vote(b"*4\r\n$4\r\nheld\r\n$2\r\nt1\r\n:30\r\n:9\r\n").vote;
    let owner = TxnId::new("t1");
    assert_eq!(
        held,
        Vote::No(Refusal::Held {
            owner,
            remaining_ms: 30
        })
    );
}

/// I8: EXECABORT only for what certainly did not happen.
#[test]
fn only_errors_that_prove_it_are_a_no() {
    for text in [
        "OOM command not allowed when used memory > 'maxmemory'. script: ab, on @user_script:1.",
        "READONLY You can't write against a read only replica.",
        "NOSCRIPT No matching script. Please use EVAL.",
        "NOPERM this user has no permissions to run the 'evalsha' command",
    ] {
        assert_eq!(vote(format!("-{text}\r\n").as_bytes()).vote, refused(text));
    }
    for frame in [
        b"-ERR value is not an integer\r\n".as_slice(),
        b"-NOPERM The user executing the script can't run this script: ab, on @user_script:1.\r\n",
        b"-OOMMM\r\n",
        b"-\r\n",
        b"+OK\r\n",
        b":-1\r\n",
        b"*1\r\n$4\r\nlate\r\n",
        b"*2\r\n$4\r\nseen\r\n$3\r\nwhy\r\n",
        b"*0\r\n",
        b"$-1\r\n",
        b"",
    ] {
        assert_eq!(vote(frame).vote, Vote::Unknown, "{frame:?}");
    }
    assert!(is_noscript(b"-NOSCRIPT No matching script.\r\n"));
    assert!(!is_noscript(b"$8\r\nNOSCRIPT\r\n"));
}

/// I2: a Yes whose record was settled before the WATCH stood is none.
#[test]
fn the_state_behind_the_watch_decides() {
    let of = |behind: &[u8]| vote_watching([b":1\r\n", b"+OK\r\n", behind]).vote;
    assert_eq!(of(b"$8\r\nprepared\r\n"), Vote::Yes);
    assert_eq!(of(b"$7\r\napplied\r\n"), Vote::Unknown);
    assert_eq!(of(b"$-1\r\n"), Vote::Unknown);
    assert_eq!(of(b"-LOADING\r\n"), Vote::Unknown);
    let no = vote_watching([b"-OOM x\r\n", b"+OK\r\n", b"$-1\r\n"]);
    assert_eq!(no.vote, refused("OOM x"));
}

#[test]
fn apply_answers_are_read() {
    let frame = b"*4\r\n$3\r\nnow\r\n+OK\r\n+:9007199254740993\r\n*2\r\n$-1\r\n:1\r\n";
    let answer = applied(frame);
    assert_eq!(answer.applied, Applied::Now);
    let native: [&[u8]; 3] = [b"+OK\r\n", b":9007199254740993\r\n", b"*2\r\n$-1\r\n:1\r\n"];
    assert_eq!(answer.replies, native);
    assert_eq!(to_resp3(native[2]).as_ref(), b"*2\r\n_\r\n:1\r\n");
    assert_eq!(to_resp3(b"$-1\r\n").as_ref(), b"_\r\n");
    assert_eq!(
        to_resp3(b"*1\r\n$1\r\nx\r\n").as_ref(),
        b"*1\r\n$1\r\nx\r\n"
    );
    let of = |frame: &'static [u8]| applied(frame).applied;
    assert_eq!(of(b"*1\r\n$-1\r\n"), Applied::Not(None));
    assert_eq!(
        of(b"*1\r\n$7\r\naborted\r\n"),
        Applied::Not(Some(State::Aborted))
    );
    assert_eq!(of(b"-MISCONF x\r\n"), Applied::Refused);
    assert_eq!(of(b"-ERR x\r\n"), Applied::Unknown);
    assert_eq!(of(b"*0\r\n"), Applied::Unknown);
}

#[test]
fn exec_answers_are_read() {
    let ran = exec(b"*3\r\n:0\r\n:1\r\n+OK\r\n", 2);
    assert_eq!(ran, Exec::Ran(vec![b"+OK\r\n".as_slice()]));
    assert_eq!(exec(b"*-1\r\n", 2), Exec::Broken);
    assert!(matches!(exec(b"-EXECABORT x\r\n", 2), Exec::Refused(_)));
    assert!(matches!(
        exec(b"-ERR EXEC without MULTI\r\n", 2),
        Exec::Unknown(_)
    ));
    assert!(matches!(exec(b"*1\r\n:0\r\n", 2), Exec::Unknown(_)));
}

#[test]
fn records_are_read() {
    let frame = b"*5\r\n:9\r\n$8\r\nprepared\r\n$2\r\n12\r\n$7\r\n0/0,3/1\r\n$3\r\n3/1\r\n";
    let decider = Part { shard: 3, db: 1 };
    let expected = Record {
        state: State::Prepared,
        deadline_ms: 12,
        now_ms: 9,
        participants: vec![Part { shard: 0, db: 0 }, decider],
        rule: Rule::Decider(decider),
    };
    assert_eq!(record(frame), Ok(Some(expected)));
    let absent = b"*5\r\n:9\r\n$-1\r\n$-1\r\n$-1\r\n$-1\r\n";
    assert_eq!(record(absent), Ok(None));
    assert!(record(b"-LOADING x\r\n").is_err());
    let foreign = b"*5\r\n:9\r\n$1\r\n?\r\n$-1\r\n$-1\r\n$-1\r\n";
    assert!(record(foreign).is_err());
}

#[test]
fn a_time_that_no_clock_tells_is_not_read() {
    let far = (1_u64 << 53) + 1;
    for now in [far as i64, i64::MAX, -1] {
        let vote = vote(format!(":{now}\r\n").as_bytes());
        assert!(vote.now_ms.is_none(), "{now}: {vote:?}");
        let told = format!("*5\r\n:{now}\r\n$8\r\nprepared\r\n$1\r\n5\r\n$3\r\n0/0\r\n$-1\r\n");
        assert!(record(told.as_bytes()).is_err(), "{now}");
    }
    let told = format!("*5\r\n:1\r\n$8\r\nprepared\r\n$16\r\n{far}\r\n$3\r\n0/0\r\n$-1\r\n");
    assert!(record(told.as_bytes()).is_err());
    assert!(
        record(
            told.replace(&far.to_string(), "9007199254740992")
                .as_bytes()
        )
        .is_ok()
    );
}
