//! Row security lasts: through setup(), upgrades of rights, new partitions, dumps, and an extension
//! that was dropped and came back.

mod books_common;
mod common;
mod dump_common;
mod row_security_common;

use books_common::{assert_no_violations, assert_same, catalog, texts};
use common::{Database, Server, error_of, one, run_sql, wait_until};
use dump_common::{Dump, succeeds, tool};
use postgres::Client;
use row_security_common::{World, rows_of};

/// Every policy, with its own oid: one that was dropped and made again is another one.
fn policies(client: &mut Client) -> Vec<String> {
    texts(
        client,
        "SELECT concat_ws(' ', p.oid, c.relname, p.polname, p.polroles::regrole[], pg_get_expr(p.polqual, c.oid))
         FROM pg_policy AS p JOIN pg_class AS c ON c.oid = p.polrelid
         WHERE relnamespace = 'exa_billing'::regnamespace ORDER BY 1",
    )
}

/// Tables and partitions by whether they have row security, and what of policies each has.
fn secured(client: &mut Client) -> Vec<String> {
    texts(
        client,
        "SELECT concat_ws(' ', CASE WHEN relispartition THEN 'partition' ELSE 'table' END, relrowsecurity,
                relforcerowsecurity, policies, count(*))
         FROM (SELECT *, (SELECT string_agg(polname, ',' ORDER BY polname) FROM pg_policy WHERE polrelid = c.oid) AS policies
               FROM pg_class AS c) AS c
         WHERE relnamespace = 'exa_billing'::regnamespace AND relkind IN ('r', 'p')
         GROUP BY relispartition, relrowsecurity, relforcerowsecurity, policies ORDER BY 1",
    )
}

fn sees(world: &World, user: &str) -> usize {
    rows_of(&mut world.serving(user), "account_balances", "true").len()
}

/// Those of a database but for the roles of another one.
fn described(client: &mut Client) -> Vec<String> {
    catalog(client).into_iter().filter(|line| !line.contains("\"_RETURN\"")).collect()
}

#[test]
fn every_table_is_covered_and_setup_changes_nothing() {
    let mut world = World::new();
    let before = secured(&mut world.admin);
    let (own, staff) = (20, texts(&mut world.admin, "SELECT count(*)::text FROM pg_class WHERE relnamespace = 'exa_billing'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition")[0].parse::<usize>().expect("a number") - 20);
    assert_eq!(before.len(), 3, "{before:?}");
    assert!(before[0].starts_with("partition t f "), "{before:?}");
    assert_eq!(
        before[1..],
        [format!("table t f own_rows,staff {own}"), format!("table t f staff {staff}")]
    );
    let (named, described) = (policies(&mut world.admin), catalog(&mut world.admin));
    for call in ["setup()", "enable_row_security()", "maintain_partitions()", "setup()"] {
        run_sql(&mut world.admin, &format!("SELECT exa_billing.{call}"));
        assert_same(call, &named, &policies(&mut world.admin));
        assert_same(call, &described, &catalog(&mut world.admin));
    }
    assert_no_violations(&mut world.admin);
}

#[test]
fn an_end_user_is_not_let_in_before_row_security_is_enabled() {
    let mut world = World::without_policies();
    world.create_role("web");
    let grant = format!("SELECT exa_billing.grant_end_user('{}')", world.role("web"));
    let error = error_of(&mut world.admin, &grant);
    assert_eq!(error.code, "55000");
    let hint = error.hint.expect("what helps");
    assert!(hint.contains("enable_row_security"), "{hint}");
    let error = error_of(&mut world.as_role("web"), "SELECT FROM exa_billing.accounts");
    assert_eq!(error.code, "42501");
    run_sql(&mut world.admin, "SELECT exa_billing.enable_row_security()");
    run_sql(&mut world.admin, &grant);
    // A table without it, of whatever age, is reason enough.
    run_sql(&mut world.admin, "ALTER TABLE exa_billing.accounts DISABLE ROW LEVEL SECURITY");
    assert_eq!(error_of(&mut world.admin, &grant).code, "55000");
    run_sql(&mut world.admin, "SELECT exa_billing.setup()");
    run_sql(&mut world.admin, &grant);
}

#[test]
fn members_of_the_owner_role_enable_and_grant_and_nobody_else() {
    let mut world = World::without_policies();
    for role in ["dba", "web"] {
        world.create_role(role);
    }
    let (dba, web) = (world.role("dba"), world.role("web"));
    run_sql(&mut world.admin, &format!("GRANT exa_billing_owner TO {dba}"));
    let calls = [
        "SELECT exa_billing.enable_row_security()".to_owned(),
        format!("SELECT exa_billing.grant_end_user('{web}')"),
    ];
    for role in ["application", "operator", "auditor", "web"] {
        for call in &calls {
            assert_eq!(error_of(&mut world.as_role(role), call).code, "42501", "{role}: {call}");
        }
    }
    let mut client = world.as_role("dba");
    for call in &calls {
        run_sql(&mut client, call);
    }
    assert_eq!(rows_of(&mut client, "accounts", "true").len(), 6);
    assert_no_violations(&mut world.admin);
}

#[test]
fn what_somebody_took_away_is_put_back_and_what_they_added_stays() {
    let mut world = World::new();
    let (web, hand) = (world.role("web"), world.role("hand"));
    let described = catalog(&mut world.admin);
    let partition = texts(&mut world.admin, "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'exa_billing.exa_usage_log'::regclass ORDER BY 1").remove(0);
    run_sql(
        &mut world.admin,
        &format!(
            "DROP POLICY own_rows ON exa_billing.accounts;
             DROP POLICY staff ON exa_billing.unposted_spend;
             ALTER TABLE exa_billing.spend_log DISABLE ROW LEVEL SECURITY;
             ALTER TABLE {partition} DISABLE ROW LEVEL SECURITY;
             ALTER POLICY staff ON exa_billing.spend_dimensions TO {web}"
        ),
    );
    let lost = texts(&mut world.admin, "SELECT detail FROM exa_billing.verify_books() ORDER BY 1");
    let table = partition.trim_start_matches("exa_billing.");
    assert_eq!(
        lost,
        [table, "spend_log"].map(|name| format!("table {name} has no row security; call setup()"))
    );
    run_sql(&mut world.admin, "SELECT exa_billing.setup()");
    assert_same("catalog", &described, &catalog(&mut world.admin));
    run_sql(
        &mut world.admin,
        &format!(
            "CREATE POLICY theirs ON exa_billing.accounts FOR SELECT TO {hand} USING (owner_id = 'ann')"
        ),
    );
    let named = policies(&mut world.admin);
    run_sql(&mut world.admin, "SELECT exa_billing.setup()");
    assert_same("policies", &named, &policies(&mut world.admin));
    assert_eq!(rows_of(&mut world.as_role("hand"), "accounts", "true").len(), 1);
    assert_no_violations(&mut world.admin);
}

/// Policies for the owner of the tables would hide the books from their own functions.
#[test]
fn forced_row_security_stops_writing_until_it_is_gone() {
    let mut world = World::new();
    let charge = "SELECT exa_billing.record_exa_usage('ann', '/search', 5000)";
    let mut client = world.as_role("application");
    run_sql(&mut client, charge);
    run_sql(&mut world.admin, "ALTER TABLE exa_billing.unposted_spend FORCE ROW LEVEL SECURITY");
    let error = error_of(&mut client, charge);
    assert_eq!(error.code, "42501");
    assert!(error.detail.expect("which").contains("unposted_spend"));
    run_sql(&mut world.admin, "ALTER TABLE exa_billing.unposted_spend NO FORCE ROW LEVEL SECURITY");
    run_sql(&mut client, charge);
    assert_no_violations(&mut world.admin);
}

#[test]
fn a_month_that_is_made_later_is_closed_from_the_start() {
    let mut world = World::new();
    run_sql(&mut world.admin, "SELECT exa_billing.maintain_partitions(15)");
    // On demand, for a charge.
    run_sql(
        &mut world.admin,
        "SET exa_billing.late_usage_limit = '2000d';
         SELECT exa_billing.record_exa_usage('ann', '/search', 5000, created_at => now() - interval '700 days');
         SELECT exa_billing.record_exa_usage('dan', '/search', 5000, created_at => now() - interval '700 days');
         SELECT exa_billing.post_spend()",
    );
    assert_eq!(secured(&mut world.admin).len(), 3);
    let old = "created_at < now() - interval '600 days'";
    assert_eq!(rows_of(&mut world.serving("ann"), "exa_usage_log", old).len(), 1);
    assert_eq!(rows_of(&mut world.as_role("auditor"), "exa_usage_log", old).len(), 2);
    let partition: String = one(
        &mut world.admin,
        &format!(
            "SELECT DISTINCT tableoid::regclass::text FROM exa_billing.exa_usage_log WHERE {old}"
        ),
        &[],
    );
    let (hand, web) = (world.role("hand"), world.role("web"));
    run_sql(&mut world.admin, &format!("GRANT SELECT ON {partition} TO {hand}, {web}"));
    for mut client in [world.as_role("hand"), world.serving("ann")] {
        assert_eq!(one::<i64>(&mut client, &format!("SELECT count(*) FROM {partition}"), &[]), 0);
    }
    assert_no_violations(&mut world.admin);
}

#[test]
fn an_extension_that_was_dropped_finds_its_policies_again() {
    let mut world = World::new();
    // What was granted by hand goes with the functions.
    let hand = world.role("hand");
    run_sql(
        &mut world.admin,
        &format!(
            "REVOKE ALL ON ALL ROUTINES IN SCHEMA exa_billing FROM {hand};
             REVOKE ALL ON exa_billing.health FROM {hand}" // which shows what a function returns
        ),
    );
    let described = catalog(&mut world.admin);
    run_sql(&mut world.admin, "DROP EXTENSION exa_billing CASCADE");
    // What was kept of the policies shows nobody more than before.
    let mut client = world.as_role("application");
    run_sql(&mut client, &format!("SET ROLE {}", world.role("web")));
    assert_eq!(rows_of(&mut client, "accounts", "true"), [""; 0]);
    drop(client);
    run_sql(&mut world.admin, "CREATE EXTENSION exa_billing; SELECT exa_billing.setup()");
    assert_same("catalog", &described, &catalog(&mut world.admin));
    assert_eq!((sees(&world, "ann"), sees(&world, "cat")), (2, 1));
    assert_eq!(rows_of(&mut world.as_role("auditor"), "accounts", "true").len(), 6);
    assert_no_violations(&mut world.admin);
}

#[test]
fn a_dump_carries_row_security_along() {
    let server = Server::shared();
    let mut world = World::new();
    let dump = Dump::of(&server, world.db.name(), &["-Fc"]);
    let target = server.empty_database();
    succeeds(&tool(&server, "pg_restore", target.name(), &["-e", dump.path()]));
    let mut restored = target.client();
    let before = described(&mut world.admin);
    assert_same("catalog", &before, &described(&mut restored));
    let as_ann = |world: &World, target: &Database| {
        let mut client = target.client_as(&world.role("application"));
        run_sql(
            &mut client,
            &format!("SET exa_billing.user_id = 'ann'; SET ROLE {}", world.role("web")),
        );
        rows_of(&mut client, "account_balances", "true")
    };
    let shown = rows_of(&mut world.serving("ann"), "account_balances", "true");
    assert_eq!((as_ann(&world, &target), shown.len()), (shown, 2));
    run_sql(&mut restored, "SELECT exa_billing.setup()");
    assert_same("catalog", &before, &described(&mut restored));
    assert_no_violations(&mut restored);
    let pattern = format!("{}\\_%", world.db.name());
    for role in texts(
        &mut restored,
        &format!("SELECT rolname::text FROM pg_roles WHERE rolname LIKE '{pattern}'"),
    ) {
        run_sql(&mut restored, &format!("DROP OWNED BY {role}"));
    }
}

#[test]
fn rights_follow_a_role_and_not_its_name() {
    let mut world = World::new();
    for role in ["first", "second"] {
        world.create_role(role);
    }
    let (first, second) = (world.role("first"), world.role("second"));
    run_sql(&mut world.admin, &format!("SELECT exa_billing.grant_auditor('{first}')"));
    // Under a new name it sees what it saw.
    let third = world.role("third");
    run_sql(
        &mut world.admin,
        &format!("ALTER ROLE {first} RENAME TO {third}; SELECT exa_billing.setup()"),
    );
    assert_eq!(rows_of(&mut world.as_role("third"), "accounts", "true").len(), 6);
    // Whoever bears the name later, or comes back after it was all taken away, is what they are now.
    run_sql(
        &mut world.admin,
        &format!(
            "SELECT exa_billing.grant_operator('{second}'); DROP OWNED BY {second}; DROP ROLE {second};
             CREATE ROLE {second} LOGIN; SELECT exa_billing.grant_end_user('{second}');
             REVOKE USAGE ON SCHEMA exa_billing FROM {third}; SELECT exa_billing.grant_end_user('{third}');
             SELECT exa_billing.setup()"
        ),
    );
    for role in ["second", "third"] {
        let mut client = world.as_role(role);
        assert_eq!(rows_of(&mut client, "accounts", "true"), [""; 0], "{role}");
        assert_eq!(
            error_of(&mut client, "SELECT exa_billing.post_spend()").code,
            "42501",
            "{role}"
        );
    }
    assert_no_violations(&mut world.admin);
}

/// A role that goes takes its place in the policies with it; the last one takes the policies.
#[test]
fn roles_come_and_go() {
    let mut world = World::new();
    let web = world.role("web");
    run_sql(&mut world.admin, &format!("DROP OWNED BY {web}; SELECT exa_billing.setup()"));
    let own =
        texts(&mut world.admin, "SELECT polname::text FROM pg_policy WHERE polname = 'own_rows'");
    assert_eq!(own, [""; 0]);
    let mut client = world.serving("ann");
    assert_eq!(error_of(&mut client, "SELECT FROM exa_billing.accounts").code, "42501");
    run_sql(&mut world.admin, &format!("SELECT exa_billing.grant_end_user('{web}')"));
    assert_eq!(sees(&world, "ann"), 2);
    assert_eq!(rows_of(&mut world.as_role("operator"), "accounts", "true").len(), 6);
}

/// An application that is none any more says of nobody whom their session serves.
#[test]
fn an_application_leaves_nothing_behind() {
    let mut world = World::new();
    let (web, first) = (world.role("web"), world.role("application"));
    world.create_role("second");
    let second = world.role("second");
    run_sql(
        &mut world.admin,
        &format!("SELECT exa_billing.grant_application('{second}'); GRANT {web} TO {second}"),
    );
    let says = "SET exa_billing.user_id = 'ann'";
    let mut clients = [world.as_role("application"), world.as_role("second")];
    for client in &mut clients {
        run_sql(client, says);
        run_sql(client, "RESET exa_billing.user_id");
    }
    run_sql(
        &mut world.admin,
        &format!(
            "REVOKE SET ON PARAMETER exa_billing.user_id FROM {first}; DROP OWNED BY {second}"
        ),
    );
    for client in &mut clients {
        assert_eq!(error_of(client, says).code, "42501");
    }
    // Given again, and gone with its owner.
    run_sql(&mut world.admin, "SELECT exa_billing.setup()");
    run_sql(&mut clients[0], says);
    assert_eq!(error_of(&mut clients[1], says).code, "42501");
    run_sql(
        &mut world.admin,
        &format!("DROP OWNED BY {first}; DROP ROLE {first}; DROP ROLE {second}"),
    );
    assert_no_violations(&mut world.admin);
}

/// Two grants at once: neither forgets the other's role.
#[test]
fn two_grants_at_once_are_both_kept() {
    let mut world = World::new();
    for role in ["one", "two"] {
        world.create_role(role);
    }
    let (one_role, two) = (world.role("one"), world.role("two"));
    let (mut first, mut second) = (world.db.client(), world.db.client());
    run_sql(&mut first, &format!("BEGIN; SELECT exa_billing.grant_auditor('{one_role}')"));
    let waiting = std::thread::spawn(move || {
        run_sql(&mut second, &format!("SELECT exa_billing.grant_auditor('{two}')"));
    });
    common::wait_until("the second grant waits", || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        one::<i64>(&mut world.admin, sql, &[]) == 1
    });
    run_sql(&mut first, "COMMIT");
    waiting.join().expect("the second grant");
    for role in ["one", "two"] {
        assert_eq!(rows_of(&mut world.as_role(role), "accounts", "true").len(), 6, "{role}");
    }
}

/// The right to name end users is the whole server's; PostgreSQL refuses to wait for somebody who is
/// giving it elsewhere.
#[test]
fn applications_are_granted_in_two_databases_at_once() {
    let server = Server::start("both", &[]);
    let databases = [server.database(), server.database()];
    let [mut first, mut second] = databases.each_ref().map(|db| db.client());
    run_sql(&mut first, "CREATE ROLE one LOGIN; CREATE ROLE two LOGIN; SELECT exa_billing.setup()");
    run_sql(&mut second, "SELECT exa_billing.setup()");
    run_sql(&mut first, "BEGIN; SELECT exa_billing.grant_application('one')");
    let waiting = std::thread::spawn(move || {
        run_sql(&mut second, "SELECT exa_billing.grant_application('two')");
    });
    let mut watcher = server.client("postgres");
    common::wait_until("the second grant waits", || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        one::<i64>(&mut watcher, sql, &[]) == 1
    });
    run_sql(&mut first, "COMMIT");
    waiting.join().expect("the second grant");
    for (db, role) in databases.iter().zip(["one", "two"]) {
        run_sql(&mut db.client_as(role), "SET exa_billing.user_id = 'ann'");
    }
}

/// The right to name end users is the whole server's; databases must not trip over each other.
#[test]
fn extensions_are_made_in_two_databases_at_once() {
    let server = Server::start("twice", &[]);
    for round in 0..4 {
        let databases = [server.empty_database(), server.empty_database()];
        let owns = "SELECT count(*) FROM pg_roles WHERE rolname = 'exa_billing_owner'";
        assert_eq!(one::<i64>(&mut server.client("postgres"), owns, &[]), 0, "{round}");
        let makers: Vec<_> = databases
            .iter()
            .map(|db| db.client())
            .map(|mut client| {
                std::thread::spawn(move || {
                    let name = one::<String>(&mut client, "SELECT 'app_of_' || current_database()", &[]);
                    run_sql(
                        &mut client,
                        &format!(
                            "CREATE EXTENSION exa_billing; SELECT exa_billing.setup(); CREATE ROLE {name};
                             SELECT exa_billing.grant_application('{name}')"
                        ),
                    );
                    one::<bool>(
                        &mut client,
                        "SELECT has_parameter_privilege('exa_billing_owner', 'exa_billing.user_id', 'SET WITH GRANT OPTION')",
                        &[],
                    )
                })
            })
            .collect();
        for maker in makers {
            assert!(maker.join().expect("an extension"));
        }
        for db in databases {
            let name = db.name().to_owned();
            run_sql(
                &mut db.client(),
                &format!(
                    "DROP OWNED BY app_of_{name}; DROP ROLE app_of_{name};
                     DROP EXTENSION exa_billing CASCADE; DROP OWNED BY exa_billing_owner CASCADE"
                ),
            );
            run_sql(&mut server.client("postgres"), &format!("DROP DATABASE {name} WITH (FORCE)"));
        }
        run_sql(&mut server.client("postgres"), "DROP ROLE exa_billing_owner");
    }
}

/// ANALYZE notes its figures where a grant on a table stands, and waits for the grant's transaction.
#[test]
fn a_grant_and_an_analyze_that_is_under_way_do_not_wait_crosswise() {
    let mut world = World::new();
    world.create_role("late");
    let role = world.role("late");
    let mut maintenance = world.db.client();
    // As far as ANALYZE comes before it has something to note.
    let table = "exa_billing.accounts";
    let begun = format!("BEGIN; LOCK TABLE {table} IN SHARE UPDATE EXCLUSIVE MODE");
    run_sql(&mut maintenance, &begun);
    let mut granting = world.db.client();
    let pid: i32 = one(&mut granting, "SELECT pg_backend_pid()", &[]);
    std::thread::scope(|scope| {
        let grant = format!("SELECT exa_billing.grant_auditor('{role}')");
        let granted = scope.spawn(move || granting.batch_execute(&grant));
        let waits = format!(
            "SELECT coalesce(max(wait_event_type), '') = 'Lock' FROM pg_stat_activity WHERE pid = {pid}"
        );
        wait_until("the grant waits for the table", || one(&mut world.admin, &waits, &[]));
        run_sql(&mut maintenance, &format!("ANALYZE {table}; COMMIT"));
        granted.join().expect("the session that grants").expect("a grant");
    });
    assert_no_violations(&mut world.admin);
}
