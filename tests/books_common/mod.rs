//! What the tests of whole books share: filling them, and writing down everything that is in
//! them and everything the catalog says of them.
#![allow(dead_code)] // each test program uses a part of it

use crate::common::{one, run_sql};
use postgres::Client;

/// Books with something in every table but the queue's blocked rows: three users, two
/// organizations, several months and days, every kind of charge; a part is posted, the rest waits.
/// This month's allowance of user-1 is used up. Returns the number of rows that wait.
pub fn fill(client: &mut Client) -> i64 {
    run_sql(
        client,
        "SELECT exa_billing.set_free_allowance(3000, '2020-01-01');
         SELECT exa_billing.set_free_allowance(900, '2020-01-01', 'user-1', 'split');
         SELECT exa_billing.set_organization_member('org-1', 'user-1', 'owner');
         SELECT exa_billing.set_organization_member('org-1', 'user-2', 'member', 5000000);
         SELECT exa_billing.grant_credit('user', 'user-1', 20000000, idempotency_key => 'g');
         SELECT exa_billing.grant_credit('organization', 'org-1', 90000000, description => 'hé');
         SELECT exa_billing.record_exa_usage('user-' || n % 3,
                    (ARRAY['/search', '/contents', '/answer', '/research/v1'])[1 + n % 4], 1000 + n,
                    CASE WHEN n % 5 < 2 THEN 'org-' || n % 5 END, 'key-' || n,
                    now() - n * interval '19 hours')
         FROM generate_series(1, 40) AS n;
         SELECT exa_billing.record_spend('organization', 'org-1', 70 + n,
                    CASE n % 2 WHEN 0 THEN 'variable' ELSE 'scheduled' END,
                    (ARRAY['kiloclaw', 'my-shop'])[1 + n % 2], 'product-' || n % 3, 'feature',
                    actor_user_id => CASE WHEN n > 3 THEN 'user-2' END, idempotency_key => 's' || n)
         FROM generate_series(1, 10) AS n;
         SELECT exa_billing.import_opening_balance('user', 'user-9', 500, 200, now() - interval '2 days',
                    'takeover');
         SELECT exa_billing.grant_credit('user', 'user-2', 4000, now() - interval '3 days',
                    created_at => now() - interval '33 days');
         SELECT exa_billing.grant_credit('user', 'user-2', 6000, now() + interval '90 days');
         SELECT exa_billing.post_spend(30);
         SELECT exa_billing.expire_due_credits();
         SELECT exa_billing.adjust_credit('organization', 'org-1', -70, 'a correction');
         SELECT exa_billing.record_exa_response('user-2', '/search',
                    '{\"requestId\": \"req_1\", \"costDollars\": {\"total\": 0.0051}}', 'org-1');
         SELECT exa_billing.record_exa_usage('user-1', '/search', 2000);",
    );
    let waiting = one(client, "SELECT count(*) FROM exa_billing.unposted_spend", &[]);
    assert_eq!(waiting, 40 + 10 + 1 - 30 + 2);
    waiting
}

/// Each table and view of the books with its number of rows and a hash of all of them; but not health,
/// which tells the time.
pub fn contents(client: &mut Client) -> Vec<String> {
    let names = client
        .query(
            "SELECT c.oid::regclass::text FROM pg_class AS c
             WHERE c.relnamespace = 'exa_billing'::regnamespace AND c.relkind IN ('r', 'v')
               AND c.relname <> 'health'
             ORDER BY c.relname",
            &[],
        )
        .expect("the books");
    assert!(names.len() > 40, "too few tables: {}", names.len());
    let mut lines = Vec::new();
    for row in names {
        let name: String = row.get(0);
        let digest: String = one(
            client,
            &format!(
                "SELECT count(*) || ' rows, ' || coalesce(md5(string_agg(t::text, chr(10)
                     ORDER BY t::text COLLATE \"C\")), 'none') FROM {name} AS t"
            ),
            &[],
        );
        lines.push(format!("{name}: {digest}"));
    }
    lines
}

/// What somebody who reads the figures sees, without the ids that differ from call to call.
pub fn figures(client: &mut Client) -> Vec<String> {
    texts(
        client,
        "SELECT 'balance ' || f::text FROM exa_billing.account_balances AS f
         UNION ALL SELECT 'month ' || f::text FROM exa_billing.exa_monthly_usage_current AS f
         UNION ALL SELECT 'hour ' || f::text FROM exa_billing.spend_hourly AS f
         UNION ALL SELECT 'driver ' || f::text FROM exa_billing.spend_drivers_hourly AS f
         UNION ALL SELECT 'posted ' || f::text FROM exa_billing.accounts AS f
         UNION ALL SELECT 'posted day ' || f::text FROM exa_billing.spend_daily_totals AS f
         UNION ALL SELECT 'day ' || f::text FROM exa_billing.organization_member_usage AS f
         UNION ALL SELECT 'locked ' || f::text FROM exa_billing.exa_monthly_allowance AS f
         ORDER BY 1",
    )
}

/// Everything the catalogs say of the schema, one line each, the same for equal schemas.
pub fn catalog(client: &mut Client) -> Vec<String> {
    let lines = texts(client, CATALOG);
    assert!(lines.len() > 1000, "too few lines: {}", lines.len());
    lines
}

pub fn texts(client: &mut Client, sql: &str) -> Vec<String> {
    match client.query(sql, &[]) {
        Ok(rows) => rows.iter().map(|row| row.get(0)).collect(),
        Err(error) => panic!("{sql}\n{error:?}"),
    }
}

pub fn assert_no_violations(client: &mut Client) {
    let violations = texts(client, "SELECT v::text FROM exa_billing.verify_books() AS v");
    assert!(violations.is_empty(), "{violations:#?}");
}

/// Fails with the lines that differ only; both have hundreds.
#[track_caller]
pub fn assert_same(what: &str, before: &[String], after: &[String]) {
    let gone: Vec<&String> = before.iter().filter(|line| !after.contains(line)).collect();
    let new: Vec<&String> = after.iter().filter(|line| !before.contains(line)).collect();
    assert!(
        gone.is_empty() && new.is_empty() && before.len() == after.len(),
        "{what}: gone {gone:#?}, new {new:#?} ({} and {} lines)",
        before.len(),
        after.len()
    );
}

/// Rights are spelt out where they are the default, since a restored dump may do either.
const CATALOG: &str = "
WITH ns AS (SELECT * FROM pg_namespace WHERE nspname = 'exa_billing'),
rel AS (
    SELECT c.*, c.oid::regclass::text AS name
    FROM pg_class AS c JOIN ns ON ns.oid = c.relnamespace
)
SELECT concat_ws(' | ', 'schema', pg_get_userbyid(nspowner),
                 (SELECT array_agg(a::text ORDER BY a::text)
                  FROM unnest(coalesce(nspacl, acldefault('n', nspowner))) AS a),
                 obj_description(oid, 'pg_namespace'))
FROM ns
UNION ALL
SELECT concat_ws(' | ', 'relation', relkind, name, pg_get_userbyid(relowner), relpersistence,
                 relrowsecurity, relforcerowsecurity, relreplident, relispartition,
                 (SELECT amname FROM pg_am WHERE oid = relam), reltablespace,
                 (SELECT array_agg(o ORDER BY o) FROM unnest(reloptions) AS o),
                 pg_get_expr(relpartbound, oid), pg_get_partkeydef(oid),
                 (SELECT array_agg(a::text ORDER BY a::text)
                  FROM unnest(coalesce(relacl, acldefault('r', relowner))) AS a
                  WHERE relkind IN ('r', 'p', 'v')),
                 obj_description(oid, 'pg_class'))
FROM rel
UNION ALL
SELECT concat_ws(' | ', 'column', name, row_number() OVER (PARTITION BY rel.oid ORDER BY attnum),
                 attname, format_type(atttypid, atttypmod), attcollation::regcollation, attnotnull,
                 attstorage, attcompression, attidentity, attgenerated, attislocal, attinhcount, attacl,
                 -- pg_attver is the server's own and differs from table to table
                 (SELECT array_agg(o ORDER BY o) FROM unnest(attoptions) AS o WHERE o NOT LIKE 'pg_attver=%'),
                 pg_get_expr(adbin, adrelid), col_description(rel.oid, attnum))
FROM rel JOIN pg_attribute ON attrelid = rel.oid AND attnum > 0 AND NOT attisdropped
LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE relkind IN ('r', 'p', 'v', 'c')
UNION ALL
SELECT concat_ws(' | ', 'constraint', name, conname, pg_get_constraintdef(k.oid), convalidated,
                 obj_description(k.oid, 'pg_constraint'))
FROM rel JOIN pg_constraint AS k ON conrelid = rel.oid
UNION ALL
SELECT concat_ws(' | ', 'index', name, pg_get_indexdef(rel.oid), indisvalid, indisready, indisclustered)
FROM rel JOIN pg_index ON indexrelid = rel.oid
UNION ALL
SELECT concat_ws(' | ', 'inherits', name, inhparent::regclass, inhdetachpending)
FROM rel JOIN pg_inherits ON inhrelid = rel.oid
UNION ALL
SELECT concat_ws(' | ', 'trigger', name, pg_get_triggerdef(t.oid), tgenabled,
                 obj_description(t.oid, 'pg_trigger'))
FROM rel JOIN pg_trigger AS t ON tgrelid = rel.oid
UNION ALL
SELECT concat_ws(' | ', 'rule', name, pg_get_ruledef(r.oid), ev_enabled)
FROM rel JOIN pg_rewrite AS r ON ev_class = rel.oid
UNION ALL
SELECT concat_ws(' | ', 'policy', name, polname, polcmd, polpermissive,
                 (SELECT array_agg(r::regrole ORDER BY r::regrole::text) FROM unnest(polroles) AS r),
                 pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
FROM rel JOIN pg_policy ON polrelid = rel.oid
UNION ALL
SELECT concat_ws(' | ', 'function', prokind, p.oid::regprocedure, pg_get_userbyid(proowner),
                 (SELECT lanname FROM pg_language AS l WHERE l.oid = prolang), probin, prosrc, prosqlbody,
                 provolatile, proparallel, prosecdef, proleakproof, proisstrict, procost, prorows, proretset,
                 prosupport, proconfig, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid),
                 (SELECT array_agg(a::text ORDER BY a::text)
                  FROM unnest(coalesce(proacl, acldefault('f', proowner))) AS a),
                 obj_description(p.oid, 'pg_proc'))
FROM pg_proc AS p JOIN ns ON ns.oid = pronamespace
UNION ALL
SELECT concat_ws(' | ', 'type', t.oid::regtype, pg_get_userbyid(typowner), typtype,
                 (SELECT array_agg(a::text ORDER BY a::text)
                  FROM unnest(coalesce(typacl, acldefault('T', typowner))) AS a),
                 obj_description(t.oid, 'pg_type'))
FROM pg_type AS t JOIN ns ON ns.oid = typnamespace
UNION ALL
SELECT concat_ws(' | ', 'statistics', pg_get_statisticsobjdef(s.oid), pg_get_userbyid(stxowner))
FROM pg_statistic_ext AS s JOIN ns ON ns.oid = stxnamespace
UNION ALL
SELECT concat_ws(' | ', 'default rights', pg_get_userbyid(defaclrole), defaclobjtype, defaclacl)
FROM pg_default_acl JOIN ns ON ns.oid = defaclnamespace
UNION ALL
SELECT concat_ws(' | ', 'extension', extname, extversion, pg_get_userbyid(extowner), extnamespace::regnamespace,
                 extrelocatable, extconfig, obj_description(oid, 'pg_extension'))
FROM pg_extension WHERE extname = 'exa_billing'
UNION ALL
SELECT concat_ws(' | ', 'event trigger', evtname, evtevent, evtfoid::regproc, evtenabled, evttags,
                 pg_get_userbyid(evtowner), obj_description(oid, 'pg_event_trigger'))
FROM pg_event_trigger
UNION ALL -- what pg_dump takes for the extension's own rights, and leaves out
SELECT concat_ws(' | ', 'initial rights', pg_describe_object(classoid, objoid, objsubid), privtype,
                 (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(initprivs) AS a))
FROM pg_init_privs
WHERE (classoid, objoid) IN (SELECT 'pg_proc'::regclass, p.oid FROM pg_proc AS p JOIN ns ON ns.oid = pronamespace
                             UNION ALL SELECT 'pg_type'::regclass, y.oid FROM pg_type AS y JOIN ns ON ns.oid = typnamespace
                             UNION ALL SELECT 'pg_class'::regclass, rel.oid FROM rel
                             UNION ALL SELECT 'pg_namespace'::regclass, ns.oid FROM ns)
UNION ALL
SELECT concat_ws(' | ', 'member', pg_describe_object(classid, objid, objsubid))
FROM pg_depend
WHERE deptype = 'e' AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'exa_billing')
ORDER BY 1";
