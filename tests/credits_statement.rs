//! What an owner reads: blocks of credit, and the statement of the account.

mod common;
mod credits_common;
mod sessions;
mod usage_common;

use common::{one, run_sql};
use credits_common::*;
use postgres::Client;
use sessions::Dice;
use usage_common::{assert_books_hold, column, no_free_allowance};

/// Name of each block with amount, claimed and remaining.
fn blocks(c: &mut Client, owner: &Owner, as_of: &str) -> Vec<(String, i64, i64, i64)> {
    let sql = format!("select * from credit_blocks({}, '{as_of}')", owner.arguments());
    let rows = c.query(&sql, &[]).expect("the blocks");
    rows.iter()
        .map(|row| {
            (
                row.get("description"),
                row.get("amount_microdollars"),
                row.get("claimed_microdollars"),
                row.get("remaining_microdollars"),
            )
        })
        .collect()
}

fn block(name: &str, amount: i64, claimed: i64) -> (String, i64, i64, i64) {
    (name.to_owned(), amount, claimed, amount - claimed)
}

/// Lines of a statement as `time kind description amount balance`.
fn statement(c: &mut Client, owner: &Owner, from: &str, to: &str) -> Vec<String> {
    let sql = format!(
        "select concat_ws('|', to_char(line_time at time zone 'UTC', 'MM-DD HH24:MI'), kind, description,
                          amount_microdollars, balance_microdollars)
         from account_statement({}, '{from}', '{to}')",
        owner.arguments()
    );
    column(c, &sql)
}

#[test]
fn what_is_claimed_of_each_grant() {
    let (_db, mut c) = books();
    let o = organization("o");
    o.grant(&mut c, "first", 100, "2025-04-01", "");
    o.grant(&mut c, "A", 50, "2025-04-02", "2040-01-01");
    assert_eq!(blocks(&mut c, &o, "now"), [block("A", 50, 0), block("first", 100, 0)]);
    o.llm(&mut c, 20, "2025-04-03");
    o.grant(&mut c, "B", 40, "2025-04-04", "2039-01-01");
    o.grant(&mut c, "second", 30, "2025-04-05", "");
    o.exa(&mut c, 15, "2025-04-06");
    // B goes first and claims [20, 35); A what is before it.
    let expected =
        [block("B", 40, 15), block("A", 50, 20), block("first", 100, 0), block("second", 30, 0)];
    assert_eq!(blocks(&mut c, &o, "now"), expected);
    post(&mut c);
    assert_eq!(blocks(&mut c, &o, "now"), expected);
    o.llm(&mut c, 150, "2025-04-07");
    let expected =
        [block("B", 40, 40), block("A", 50, 50), block("first", 100, 95), block("second", 30, 0)];
    assert_eq!(blocks(&mut c, &o, "now"), expected);
    o.llm(&mut c, 100, "2025-04-08");
    let all_claimed =
        [block("B", 40, 40), block("A", 50, 50), block("first", 100, 100), block("second", 30, 30)];
    assert_eq!(blocks(&mut c, &o, "now"), all_claimed);
    assert_eq!(o.balance(&mut c, "now"), -65);
    // What has expired by then is not open any more.
    assert_eq!(blocks(&mut c, &o, "2039-06-01"), all_claimed[1..]);
    assert_books_hold(&mut c);
}

// The sum of what is left is the balance, wherever the history stands.
#[test]
fn what_is_left_of_the_blocks_is_the_balance() {
    let (_db, mut c) = books();
    let mut dice = Dice(20_250_401);
    let mut covered = 0;
    for number in 0..12 {
        let owner = user(&format!("u{number}"));
        for day in 1..29 {
            let at = format!("2025-05-{day:02} {:02}:00+00", dice.up_to(24));
            match dice.up_to(4) {
                0 => {
                    let expiry = format!("2025-{:02}-{:02}", 6 + dice.up_to(4), 1 + dice.up_to(28));
                    let (name, expiry) =
                        if dice.up_to(3) == 0 { ("lasting", "") } else { ("g", expiry.as_str()) };
                    owner.grant(&mut c, name, 1 + dice.up_to(500), &at, expiry);
                }
                1 => owner.llm(&mut c, 1 + dice.up_to(80), &at),
                _ => owner.exa(&mut c, 1 + dice.up_to(80), &at),
            }
        }
        for as_of in ["2025-05-30", "2025-06-20", "2025-07-20", "2025-08-20", "2025-11-01"] {
            let blocks = blocks(&mut c, &owner, as_of);
            assert!(blocks.iter().all(|(_, amount, claimed, remaining)| {
                *claimed >= 0 && *remaining >= 0 && claimed + remaining == *amount
            }));
            let left: i64 = blocks.iter().map(|(.., remaining)| remaining).sum();
            let balance = owner.balance(&mut c, as_of);
            // What was used beyond all credit is nobody's.
            if balance >= left {
                covered += 1;
                assert_eq!(left, balance, "{} at {as_of}: {blocks:?}", owner.id);
            } else {
                let lasting = blocks.iter().filter(|(name, ..)| name == "lasting");
                let of_lasting: i64 = lasting.map(|(.., remaining)| remaining).sum();
                assert_eq!(of_lasting, 0, "{} at {as_of}: {balance} of {blocks:?}", owner.id);
            }
        }
    }
    assert!(covered > 10, "only {covered} were covered");
    assert_books_hold(&mut c);
}

/// A little of everything, in April 2025.
fn filled(c: &mut Client, owner: &Owner) {
    owner.grant(c, "starter", 1_000, "2025-04-01 10:00+00", "2025-04-05 00:00+00");
    owner.exa(c, 100, "2025-04-01 11:00+00");
    owner.exa(c, 50, "2025-04-01 23:59:59.999999+00");
    owner.exa(c, 7, "2025-04-02 00:00+00");
    owner.llm(c, 30, "2025-04-02 12:00+00");
    owner.grant(c, "top-up", 500, "2025-04-02 13:00+00", "");
    owner.llm(c, 3, "2025-04-02 14:00+00");
    assert_eq!(owner.expire(c, "2025-04-06"), 810);
    owner.llm(c, 400, "2025-04-05 00:00+00");
}

#[test]
fn a_statement_tells_every_entry_with_the_balance_after_it() {
    let (_db, mut c) = books();
    for owner in [user("u"), organization("o")] {
        filled(&mut c, &owner);
        let expected = [
            "04-01 00:00|balance_brought_forward|0|0",
            "04-01 10:00|grant|starter|1000|1000",
            "04-01 23:59|spend|exa on 2025-04-01, 2 charges|-150|850",
            "04-02 00:00|spend|exa on 2025-04-02, 1 charge|-7|843",
            "04-02 13:00|grant|top-up|500|1343",
            "04-02 14:00|spend|llm on 2025-04-02, 2 charges|-33|1310",
            "04-05 00:00|expiration|Expired: starter|-810|500",
            "04-05 00:00|spend|llm on 2025-04-05, 1 charge|-400|100",
        ];
        assert_eq!(statement(&mut c, &owner, "2025-04-01", "2025-05-01"), expected);
        assert_eq!(owner.balance(&mut c, "now"), 100);
        if owner.kind == "user" {
            post(&mut c);
            assert_eq!(statement(&mut c, &owner, "2025-04-01", "2025-05-01"), expected);
        }
    }
    assert_books_hold(&mut c);
}

#[test]
fn a_statement_reads_the_same_in_a_session_of_other_habits() {
    let (db, mut c) = books();
    let u = user("u");
    filled(&mut c, &u);
    let mut other = db.client_with(
        "-c timezone=Asia/Kathmandu -c datestyle=German -c search_path=exa_billing -c lc_numeric=C",
    );
    let (from, to) = ("2025-04-01 00:00+00", "2025-05-01 00:00+00");
    assert_eq!(statement(&mut other, &u, from, to), statement(&mut c, &u, from, to));
}

#[test]
fn the_bounds_of_a_statement_are_half_open() {
    let (_db, mut c) = books();
    let u = user("u");
    filled(&mut c, &u);
    assert_eq!(
        statement(&mut c, &u, "2025-04-01 23:59:59.999999+00", "2025-04-02 13:00+00"),
        [
            "04-01 23:59|balance_brought_forward|0|900",
            "04-01 23:59|spend|exa on 2025-04-01, 1 charge|-50|850",
            "04-02 00:00|spend|exa on 2025-04-02, 1 charge|-7|843",
            "04-02 12:00|spend|llm on 2025-04-02, 1 charge|-30|813",
        ]
    );
    assert_eq!(
        statement(&mut c, &u, "2025-04-02 13:00+00", "2025-04-05 00:00+00"),
        [
            "04-02 13:00|balance_brought_forward|0|813",
            "04-02 13:00|grant|top-up|500|1313",
            "04-02 14:00|spend|llm on 2025-04-02, 1 charge|-3|1310",
        ]
    );
    let empty = statement(&mut c, &u, "2025-04-05 00:00+00", "2025-04-05 00:00+00");
    assert_eq!(empty, ["04-05 00:00|balance_brought_forward|0|1310"]);
    let later = statement(&mut c, &u, "2025-06-01", "2099-06-01");
    assert_eq!(later, ["06-01 00:00|balance_brought_forward|0|100"]);
    let error = common::error_of(
        &mut c,
        "select account_statement('user', 'u', '2025-04-02', '2025-04-01')",
    );
    assert_eq!(error.code, "22023");
    let nobody = statement(&mut c, &organization("u"), "2025-04-01", "2025-05-01");
    assert_eq!(nobody, ["04-01 00:00|balance_brought_forward|0|0"]);
}

/// The last balance of a statement up to `to`.
fn last_balance(c: &mut Client, owner: &Owner, from: &str, to: &str) -> i64 {
    let sql = format!(
        "select (array_agg(balance_microdollars))[count(*)] from account_statement({}, '{from}', '{to}')",
        owner.arguments()
    );
    one(c, &sql, &[])
}

// However it is cut, the parts of a statement continue one another and end at the balance.
#[test]
fn statements_continue_one_another_and_end_at_the_balance() {
    let (_db, mut c) = books();
    let u = user("u");
    run_sql(
        &mut c,
        "select import_opening_balance('user', 'u', 900, 100, '2025-03-30 22:00+00', 'k')",
    );
    filled(&mut c, &u);
    run_sql(
        &mut c,
        "select adjust_credit('user', 'u', -17, 'chargeback'), adjust_credit('user', 'u', 4, 'refund')",
    );
    u.llm(&mut c, 5, "now");
    let end = one::<String>(&mut c, "select (clock_timestamp() + interval '1 second')::text", &[]);
    let balance = u.balance(&mut c, "now");
    assert_eq!(balance, 800 + 100 - 13 - 5);
    assert_eq!(last_balance(&mut c, &u, "2025-01-01", &end), balance);
    let kinds = "select distinct kind from account_statement('user', 'u', '2025-01-01', 'tomorrow') order by 1";
    let all = [
        "adjustment",
        "balance_brought_forward",
        "expiration",
        "grant",
        "opening_balance",
        "spend",
    ];
    assert_eq!(column::<String>(&mut c, kinds), all);
    let mut cut = "2025-03-01".to_owned();
    for next in [
        "2025-03-30 22:00+00",
        "2025-04-01 23:00+00",
        "2025-04-02 12:00+00",
        "2025-04-05 00:00+00",
        &end,
    ] {
        let first = format!(
            "select balance_microdollars from account_statement('user', 'u', '{next}', '{next}')"
        );
        let forward: i64 = one(&mut c, &first, &[]);
        assert_eq!(last_balance(&mut c, &u, &cut, next), forward, "from {cut} to {next}");
        next.clone_into(&mut cut);
    }
    assert_books_hold(&mut c);
}

// What is free is no matter of credit.
#[test]
fn a_statement_leaves_out_what_was_free() {
    let (_db, mut c) = usage_common::books();
    run_sql(
        &mut c,
        "select record_exa_usage('u', '/search', 5), grant_credit('user', 'u', 9, description => 'g')",
    );
    no_free_allowance(&mut c);
    let lines = "select concat_ws('|', kind, amount_microdollars, balance_microdollars)
                 from account_statement('user', 'u', 'yesterday', 'tomorrow')";
    assert_eq!(column::<String>(&mut c, lines), ["balance_brought_forward|0|0", "grant|9|9"]);
    assert_books_hold(&mut c);
}
