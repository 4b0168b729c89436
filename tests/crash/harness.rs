//! These tests' own tests: without kills everything holds, and each lie is noticed.

use super::{
    account::Account,
    rounds::Rounds,
    spans::{number, sender_of},
};

fn rounds(name: &'static str, count: u64) -> Rounds {
    Rounds { name, durability: "memory", count, seed: 1, kills: false, forget: None }
}

/// What is found after something was changed.
fn lie(account: &Account, change: impl FnOnce(&mut Account)) -> String {
    let mut account = account.clone();
    change(&mut account);
    account.wrong().join("; ")
}

#[test]
fn without_a_kill_everything_holds_and_each_lie_about_it_is_noticed() {
    let summary = rounds("honest", 6).run().unwrap();
    println!("{summary}");
    let account = &summary.account;
    assert_eq!((account.wrong(), account.duplicates(), account.told.cut_off), (vec![], 0, 0));
    let (total, spans) = (account.told.total(), account.told.acknowledged[&3]);
    assert!(total > 1_000, "{total}");

    let last = number(3, spans - 1);
    let sink = |account: &mut Account, change: &dyn Fn(&mut super::sink::Arrived)| {
        change(account.sinks.get_mut("second").unwrap());
    };
    let missing =
        lie(account, |account| sink(account, &|sink| assert_eq!(sink.times.remove(&last), Some(1))));
    assert!(missing.contains(&format!("1 acknowledged spans are missing, {:?} the first", sender_of(last))));
    let twice = lie(account, |account| sink(account, &|sink| sink.count(last)));
    assert!(twice.contains("second: 1 duplicates, more than 0"), "{twice}");
    let strange = lie(account, |account| sink(account, &|sink| sink.count(last + 1)));
    assert!(strange.contains("second: 1 spans arrived that nobody sent"), "{strange}");
    let unkept = lie(account, |account| *account.told.acknowledged.get_mut(&3).unwrap() += 1);
    assert!(unkept.contains(&format!("the log has taken {total} spans, not {}", total + 1)), "{unkept}");
    let unknown = lie(account, |account| *account.told.acknowledged.get_mut(&3).unwrap() -= 1);
    assert!(unknown.contains(&format!("the log has taken {total} spans, not {}", total - 1)), "{unknown}");
    let uncounted = lie(account, |account| *account.seen.counts.values_mut().next().unwrap() -= 1.0);
    assert_eq!(uncounted, format!("the span metrics count {} of {total} spans", total - 1));
    let stats = |key: &'static str, value: serde_json::Value| {
        lie(account, |account| account.seen.stats["destinations"]["default"][key] = value)
    };
    assert_eq!(stats("queued", 1.into()), "default: 1 are queued, 0 sampled out, 0 dropped");
    assert!(stats("exported", 1.into()).contains(&format!("default: of spans 0 to {total} 1 are exported")));
    let unbalanced = lie(account, |account| account.seen.stats["balanced"] = false.into());
    assert!(unbalanced.starts_with("an account does not balance: "), "{unbalanced}");
}

#[test]
fn a_sink_that_forgets_a_span_is_noticed() {
    let forgetful = Rounds { forget: Some(number(2, 40)), ..rounds("forgetful", 1) };
    let wrong = forgetful.run().err().unwrap().join("; ");
    assert!(wrong.contains("default: 1 acknowledged spans are missing, (2, 40) the first"), "{wrong}");
}

#[test]
fn a_log_in_memory_that_is_killed_is_noticed() {
    let wrong = Rounds { kills: true, ..rounds("forgotten", 3) }.run().err().unwrap().join("; ");
    assert!(wrong.contains("the counter ") && wrong.contains("the log ended at "), "{wrong}");
}
