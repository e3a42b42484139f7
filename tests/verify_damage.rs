//! verify_books() names each kind of damage. It is planted in a transaction that is rolled back,
//! by a superuser who stops at nothing.

mod books_common;
mod common;

use books_common::texts;
use common::{Database, Server, one, run_sql};
use postgres::Client;

/// Small books of known content: charged and free, personal and for an organization, of both
/// categories; posted, but for one row of each owner u and o.
struct Books {
    client: Client,
    _db: Database,
}

impl Books {
    fn new() -> Books {
        let db = Server::shared().database();
        let mut client = db.client();
        run_sql(
            &mut client,
            "SELECT exa_billing.set_free_allowance(1000, '2020-01-01', NULL, 'split');
             SELECT exa_billing.grant_credit('user', 'u', 50000, idempotency_key => 'g');
             SELECT exa_billing.grant_credit('organization', 'o', 60000);
             SELECT exa_billing.grant_credit('user', 'v', 7000, now() + interval '1 day');
             SELECT exa_billing.record_exa_usage('u', '/search', 1300, NULL, 'k1');
             SELECT exa_billing.record_exa_usage('u', '/answer', 500, 'o', 'k2');
             SELECT exa_billing.record_exa_usage('v', '/answer', 400);
             SELECT exa_billing.record_spend('organization', 'o', 70, 'variable', 'kiloclaw', 'p',
                 actor_user_id => 'v', idempotency_key => 's1');
             SELECT exa_billing.record_spend('user', 'u', 90, 'scheduled', 'coding_plan', 'p');
             SELECT exa_billing.post_spend();
             SELECT exa_billing.record_exa_usage('u', '/search', 21, NULL, 'k3');
             SELECT exa_billing.record_spend('organization', 'o', 22, 'variable', 'new', 'new');",
        );
        let mut books = Books { client, _db: db };
        assert_eq!(books.violations(""), [""; 0]);
        books
    }

    /// The invariants that are violated, each once, with the owner, as verify_books() names them.
    fn violations(&mut self, arguments: &str) -> Vec<String> {
        texts(
            &mut self.client,
            &format!(
                "SELECT DISTINCT concat_ws(' ', invariant, owner_kind, owner_id)
                 FROM exa_billing.verify_books({arguments}) ORDER BY 1"
            ),
        )
    }

    /// What is found after the damage; then the damage is undone.
    fn after(&mut self, damage: &str) -> Vec<String> {
        run_sql(&mut self.client, "BEGIN; SET LOCAL session_replication_role = replica");
        run_sql(&mut self.client, damage);
        let found = self.violations("");
        run_sql(&mut self.client, "ROLLBACK");
        found
    }

    #[track_caller]
    fn finds(&mut self, damage: &str, expected: &[&str]) {
        assert_eq!(self.after(damage), expected, "{damage}");
    }
}

/// As a change by somebody who first switched the guard off.
fn unguarded(table: &str, guard: &str, change: &str) -> String {
    format!(
        "ALTER TABLE exa_billing.{table} DISABLE TRIGGER {guard};
         ALTER TABLE exa_billing.{table} DISABLE TRIGGER USER;
         {change};
         ALTER TABLE exa_billing.{table} ENABLE ALWAYS TRIGGER {guard};"
    )
}

const CURRENT: &str = "date_trunc('month', now() AT TIME ZONE 'UTC')::date";

#[test]
fn one_owner_is_looked_at_alone() {
    let mut books = Books::new();
    run_sql(
        &mut books.client,
        "UPDATE exa_billing.accounts SET microdollars_used = microdollars_used + 1",
    );
    assert_eq!(books.violations(""), ["I3 organization o", "I3 user u", "I3 user v"]);
    assert_eq!(books.violations("'user', 'u'"), ["I3 user u"]);
    assert_eq!(books.violations("'organization', 'o'"), ["I3 organization o"]);
    assert_eq!(books.violations("'user', 'nobody'"), [""; 0]);
    let figures: String = one(
        &mut books.client,
        "SELECT concat_ws(' ', expected_microdollars, actual_microdollars, period)
         FROM exa_billing.verify_books('user', 'u')",
        &[],
    );
    assert_eq!(figures, "390 391");
}

#[test]
fn i1_a_charge_beyond_its_cost() {
    let mut books = Books::new();
    let open = "ALTER TABLE exa_billing.exa_usage_log DROP CONSTRAINT exa_usage_log_amounts_check";
    for (cost, charged, to_balance) in [(10, 11, true), (10, -1, false), (-5, 0, false)] {
        let damage = format!(
            "{open}; INSERT INTO exa_billing.exa_usage_log VALUES (gen_random_uuid(), 'w', NULL,
             '/search', {cost}, {charged}, {to_balance}, NULL, NULL, now(), now())"
        );
        let found = books.after(&damage);
        assert!(found.contains(&"I1 user w".to_owned()), "{cost}, {charged}: {found:?}");
    }
    let partition = texts(
        &mut books.client,
        "SELECT DISTINCT tableoid::regclass::text FROM exa_billing.exa_usage_log",
    );
    let table = partition[0].trim_start_matches("exa_billing.");
    let flag = "UPDATE exa_billing.exa_usage_log SET charged_to_balance = NOT charged_to_balance
                WHERE organization_id IS NOT NULL";
    let damage = format!(
        "{open}; ALTER TABLE exa_billing.exa_usage_log DISABLE TRIGGER append_only; {}
         ALTER TABLE exa_billing.exa_usage_log ENABLE ALWAYS TRIGGER append_only",
        unguarded(table, "append_only", flag)
    );
    books.finds(&damage, &["I1 organization o"]);
}

#[test]
fn i2_monthly_counters() {
    let mut books = Books::new();
    for column in ["total_cost_microdollars", "total_charged_microdollars", "request_count"] {
        let bump = format!("UPDATE exa_billing.exa_monthly_usage SET {column} = {column} + 1");
        books.finds(&format!("{bump} WHERE organization_id = 'o'"), &["I2 organization o"]);
        books.finds(
            &format!("{bump} WHERE user_id = 'u' AND organization_id IS NULL"),
            &["I2 user u"],
        );
    }
    books.finds("DELETE FROM exa_billing.exa_monthly_usage WHERE user_id = 'v'", &["I2 user v"]);
    let invented = |organization: &str| {
        format!(
            "INSERT INTO exa_billing.exa_monthly_usage
             VALUES (gen_random_uuid(), 'x', {organization}, {CURRENT}, 1, 0, 1, NULL)"
        )
    };
    books.finds(&invented("NULL"), &["I2 user x"]);
    books.finds(&invented("'y'"), &["I2 organization y"]);
}

#[test]
fn i3_and_i4_accounts() {
    let mut books = Books::new();
    let update = |set: &str| format!("UPDATE exa_billing.accounts SET {set} WHERE owner_id = 'u'");
    books.finds(&update("microdollars_used = microdollars_used + 1"), &["I3 user u"]);
    books.finds(&update("microdollars_used = -microdollars_used"), &["I3 user u"]);
    books.finds(
        &update("total_microdollars_acquired = total_microdollars_acquired - 1"),
        &["I4 user u"],
    );
    books.finds(
        "DELETE FROM exa_billing.accounts WHERE owner_id = 'o'",
        &["I3 organization o", "I4 organization o"],
    );
    books.finds(
        "INSERT INTO exa_billing.accounts VALUES ('user', 'x', 5, 6, NULL, NULL, NULL, now())",
        &["I3 user x", "I4 user x"],
    );
    books.finds(
        "INSERT INTO exa_billing.credit_transactions VALUES (gen_random_uuid(), 'user', 'u', 7,
         NULL, 0, NULL, NULL, NULL, true, NULL, now(), now())",
        &["I4 user u"],
    );
}

#[test]
fn i5_hours_drivers_and_days() {
    let mut books = Books::new();
    let totals = |set: &str| {
        format!(
            "UPDATE exa_billing.spend_hourly_totals SET {set} WHERE owner_kind = 'organization'"
        )
    };
    let drivers = |set: &str| {
        format!(
            "UPDATE exa_billing.spend_hourly_drivers SET {set}
             WHERE owner_id = 'o' AND actor_user_id = 'v'"
        )
    };
    let days = |set: &str| {
        format!("UPDATE exa_billing.organization_member_usage SET {set} WHERE user_id = 'u'")
    };
    let o = ["I5 organization o"];
    books.finds(
        &totals("total_microdollars = total_microdollars + 1"),
        &["I3 organization o", "I5 organization o"],
    );
    books.finds(&totals("spend_record_count = spend_record_count + 1"), &o);
    books.finds(&totals("hour_start = hour_start - interval '5 hours'"), &o);
    books.finds(&totals("spend_category = 'scheduled'"), &o);
    let daily = |set: &str| totals(set).replace("spend_hourly_totals", "spend_daily_totals");
    books.finds(&daily("total_microdollars = total_microdollars + 1"), &o);
    books.finds(&daily("spend_record_count = spend_record_count - 1"), &o);
    books.finds(&daily("day_start = day_start - interval '1 day'"), &o);
    books.finds(&daily("spend_category = 'scheduled'"), &o);
    books.finds("DELETE FROM exa_billing.spend_daily_totals WHERE owner_id = 'o'", &o);
    books.finds(&drivers("total_microdollars = total_microdollars + 1"), &o);
    books.finds(&drivers("spend_record_count = spend_record_count - 1"), &o);
    books.finds(&drivers("actor_user_id = 'w'"), &o);
    books.finds(&drivers("hour_start = hour_start + interval '5 hours'"), &o);
    books.finds(&drivers("dimension_id = '00000000-0000-8000-8000-657861000001'"), &o);
    books.finds(&drivers("dimension_id = gen_random_uuid()"), &o);
    books.finds(&days("microdollars_used = microdollars_used + 1"), &o);
    books.finds(&days("usage_date = usage_date - 1"), &o);
    books.finds("DELETE FROM exa_billing.organization_member_usage WHERE user_id = 'v'", &o);
}

#[test]
fn i6_allowances_and_keys() {
    let mut books = Books::new();
    books.finds(
        "UPDATE exa_billing.exa_monthly_allowance SET used_microdollars = used_microdollars - 1
         WHERE user_id = 'v'",
        &["I6 user v"],
    );
    books.finds(
        &format!(
            "INSERT INTO exa_billing.exa_monthly_allowance VALUES ('x', {CURRENT}, 9, 'whole', 8)"
        ),
        &["I6 user x"],
    );
    for space in ["exa/u", "spend/3/new/user/u", "credit/user/u"] {
        books.finds(
            &format!(
                "INSERT INTO exa_billing.idempotency_keys
                 VALUES ('{space}', 'x', gen_random_uuid(), now(), false, '')"
            ),
            &["I6"],
        );
    }
}

/// Closes the expiring grant of user v by this amount, and keeps everything else in order.
fn closing(amount: i64) -> String {
    format!(
        "INSERT INTO exa_billing.credit_transactions
         SELECT gen_random_uuid(), owner_kind, owner_id, {amount}, NULL, 0, NULL, NULL, NULL,
                false, id, now(), now()
         FROM exa_billing.credit_transactions WHERE owner_id = 'v' AND expiry_date IS NOT NULL;
         UPDATE exa_billing.accounts
         SET total_microdollars_acquired = total_microdollars_acquired + {amount},
             next_credit_expiration_at = NULL
         WHERE owner_id = 'v';"
    )
}

/// Two closures of the whole amount are each within it.
#[test]
fn i7_grants_closed_too_far_or_twice() {
    let mut books = Books::new();
    books.finds(&closing(-7000), &[]);
    books.finds(&closing(-7001), &["I7 user v"]);
    books.finds(&closing(1), &["I7 user v"]);
    let twice = format!(
        "ALTER TABLE exa_billing.credit_transactions DROP CONSTRAINT credit_transactions_one_closure_key;
         {} {}",
        closing(-7000),
        closing(-7000)
    );
    books.finds(&twice, &["I7 user v"]);
    let baselines = "UPDATE exa_billing.credit_transactions
                     SET original_baseline_microdollars_used = expiration_baseline_microdollars_used + 1
                     WHERE expiry_date IS NOT NULL";
    let damage = format!(
        "ALTER TABLE exa_billing.credit_transactions DISABLE TRIGGER USER; {baselines};
         ALTER TABLE exa_billing.credit_transactions ENABLE ALWAYS TRIGGER append_only;
         ALTER TABLE exa_billing.credit_transactions ENABLE ALWAYS TRIGGER by_functions_only;
         ALTER TABLE exa_billing.credit_transactions ENABLE ALWAYS TRIGGER by_erasure_only"
    );
    books.finds(&damage, &["I7 user v"]);
}

/// What would be processed again, or never.
#[test]
fn i8_expirations() {
    let mut books = Books::new();
    books.finds(
        "UPDATE exa_billing.accounts SET next_credit_expiration_at = NULL WHERE owner_id = 'v'",
        &["I8 user v"],
    );
    books.finds(
        "UPDATE exa_billing.accounts SET next_credit_expiration_at = now() WHERE owner_id = 'o'",
        &["I8 organization o"],
    );
    let of_another = closing(-7000).replace(
        "SELECT gen_random_uuid(), owner_kind, owner_id",
        "SELECT gen_random_uuid(), 'organization', 'o'",
    );
    let found = books.after(&of_another);
    assert!(found.contains(&"I8 organization o".to_owned()), "{found:?}");
    let of_nothing =
        "INSERT INTO exa_billing.credit_transactions VALUES (gen_random_uuid(), 'user',
        'v', 0, NULL, 0, NULL, NULL, NULL, false, gen_random_uuid(), now(), now())";
    books.finds(of_nothing, &["I8 user v"]);
}

#[test]
fn i9_lost_and_invented_charges() {
    let mut books = Books::new();
    let invented = |journal: &str, amount: i64, records: i64| {
        format!(
            "INSERT INTO exa_billing.unposted_spend VALUES ('user', 'u', gen_random_uuid(),
             '{journal}', NULL, NULL, {amount}, {records},
             '00000000-0000-8000-8000-657861000001', NULL, NULL, now(), pg_current_xact_id())"
        )
    };
    books.finds(&invented("exa", 0, 0), &["I9 user u"]);
    books.finds(&invented("spend", 0, 0), &["I9 user u"]);
    books.finds(&invented("spend", 3, 1), &["I5 user u", "I9 user u"]);
    let lost = "DELETE FROM exa_billing.unposted_spend WHERE owner_id = ";
    books.finds(&format!("{lost} 'u'"), &["I2 user u", "I5 user u"]);
    books.finds(&format!("{lost} 'o'"), &["I5 organization o"]);
    books.finds(
        "UPDATE exa_billing.unposted_spend SET amount_microdollars = amount_microdollars + 1",
        &["I2 user u", "I5 organization o", "I5 user u"],
    );
    books.finds("UPDATE exa_billing.unposted_spend SET blocked_reason = 'bad'", &[]);
    let posted_and_waiting = "INSERT INTO exa_billing.unposted_spend
        SELECT 'user', user_id, usage_id, 'exa', NULL, cost_microdollars, charged_microdollars, 1,
               '00000000-0000-8000-8000-657861000001', NULL, NULL, created_at, pg_current_xact_id()
        FROM exa_billing.exa_usage_log WHERE user_id = 'u' AND cost_microdollars = 1300";
    books.finds(posted_and_waiting, &["I2 user u", "I5 user u"]);
    let unjournaled = "INSERT INTO exa_billing.exa_usage_log VALUES (gen_random_uuid(), 'v', NULL,
                       '/search', 10, 10, true, NULL, NULL, now(), now())";
    books.finds(unjournaled, &["I2 user v", "I5 user v"]);
}

#[test]
fn i10_guards_on_every_table() {
    let mut books = Books::new();
    let guards = texts(
        &mut books.client,
        "SELECT tgrelid::regclass || ' ' || tgname FROM pg_trigger
         JOIN pg_class AS c ON c.oid = tgrelid
         WHERE relnamespace = 'exa_billing'::regnamespace AND NOT tgisinternal",
    );
    assert!(guards.len() > 30, "{guards:?}");
    for guard in guards {
        let (table, name) = guard.split_once(' ').expect("table and trigger");
        for damage in [
            format!("ALTER TABLE {table} DISABLE TRIGGER {name}"),
            format!("ALTER TABLE {table} ENABLE TRIGGER {name}"),
            format!("DROP TRIGGER {name} ON {table}"),
        ] {
            books.finds(&damage, &["I10"]);
        }
    }
}

/// It is called as the guard is, and lets through what the guard would not.
#[test]
fn i10_guards_that_only_bear_the_name() {
    let mut books = Books::new();
    let partition = texts(
        &mut books.client,
        "SELECT DISTINCT tableoid::regclass::text FROM exa_billing.exa_usage_log",
    );
    let replaced = |table: &str, events: &str, condition: &str, function: &str| {
        format!(
            "DROP TRIGGER append_only ON {table};
             CREATE TRIGGER append_only BEFORE {events} ON {table}
                 FOR EACH STATEMENT {condition} EXECUTE FUNCTION {function}();
             ALTER TABLE {table} ENABLE ALWAYS TRIGGER append_only"
        )
    };
    let refuse = "exa_billing.refuse_change";
    let harmless = "CREATE FUNCTION public.allow() RETURNS trigger LANGUAGE plpgsql
                    AS 'BEGIN RETURN NULL; END';";
    for table in ["exa_billing.spend_log", "exa_billing.idempotency_keys", &partition[0]] {
        books.finds(&replaced(table, "TRUNCATE", "", refuse), &["I10"]);
        books.finds(&replaced(table, "UPDATE OR DELETE", "", refuse), &["I10"]);
        books.finds(&replaced(table, "UPDATE OR DELETE", "WHEN (false)", refuse), &["I10"]);
        let other = replaced(table, "UPDATE OR DELETE OR TRUNCATE", "", "public.allow");
        books.finds(&format!("{harmless} {other}"), &["I10"]);
    }
}

/// Figures of a time that no journal reaches back or ahead to are invented.
#[test]
fn figures_of_months_without_a_partition() {
    let mut books = Books::new();
    let old = "timestamptz '2001-02-03 04:00+00'";
    books.finds(
        "INSERT INTO exa_billing.exa_monthly_usage
         VALUES (gen_random_uuid(), 'u', NULL, '2001-02-01', 7, 7, 1, NULL)",
        &["I2 user u"],
    );
    books.finds(
        &format!(
            "INSERT INTO exa_billing.spend_hourly_totals VALUES ('user', 'u', {old}, 'variable', 7, 1);
             UPDATE exa_billing.accounts SET microdollars_used = microdollars_used + 7
             WHERE owner_kind = 'user' AND owner_id = 'u'"
        ),
        &["I5 user u"],
    );
    let day = "timestamptz '2001-02-03 00:00+00'";
    books.finds(
        &format!("INSERT INTO exa_billing.spend_daily_totals VALUES ('user', 'u', {day}, 'variable', 7, 1)"),
        &["I5 user u"],
    );
    books.finds(
        &format!(
            "INSERT INTO exa_billing.spend_hourly_drivers VALUES
             ('user', 'u', {old}, '00000000-0000-8000-8000-657861000001', 'u', 7, 1)"
        ),
        &["I5 user u"],
    );
    books.finds(
        "INSERT INTO exa_billing.organization_member_usage VALUES ('o', 'u', '2001-02-03', 7)",
        &["I5 organization o"],
    );
    books.finds(
        "INSERT INTO exa_billing.exa_monthly_allowance VALUES ('u', '2001-02-01', 9, 'whole', 8)",
        &["I6 user u"],
    );
    books.finds(
        &format!(
            "INSERT INTO exa_billing.idempotency_keys
             VALUES ('exa/u', 'x', gen_random_uuid(), {old}, false, '')"
        ),
        &["I6"],
    );
    books.finds(
        &format!(
            "INSERT INTO exa_billing.unposted_spend VALUES ('user', 'u', gen_random_uuid(), 'spend',
             NULL, NULL, 0, 0, '00000000-0000-8000-8000-657861000001', NULL, NULL, {old}, pg_current_xact_id())"
        ),
        &["I9 user u"],
    );
}

#[test]
fn a_month_that_was_taken_out_of_its_journal() {
    let mut books = Books::new();
    let partition = texts(
        &mut books.client,
        "SELECT DISTINCT tableoid::regclass::text FROM exa_billing.exa_usage_log",
    );
    let damage = format!("ALTER TABLE exa_billing.exa_usage_log DETACH PARTITION {}", partition[0]);
    let found = books.after(&damage);
    for expected in ["I2 organization o", "I2 user u", "I5 user u", "I6 user u", "I9 user u"] {
        assert!(found.iter().any(|line| line == expected), "{expected}: {found:?}");
    }
    assert_eq!(books.violations(""), [""; 0]);
}
