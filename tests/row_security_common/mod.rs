//! What the tests of row security share: books of several owners, and a role of each kind, none of
//! them a superuser.
#![allow(dead_code)] // each test program uses a part of it

use crate::books_common::texts;
use crate::common::{Database, Server, run_sql};
use postgres::Client;

pub const STAFF: [&str; 3] = ["application", "operator", "auditor"];

/// Ann owns acme, Bob manages its bills, Cat is a plain member; Dan owns another organization.
pub const FILL: &str = "
    SELECT exa_billing.set_free_allowance(2000, '2020-01-01', overage_rule => 'split');
    SELECT exa_billing.set_free_allowance(1000, '2020-01-01', u, 'split') FROM unnest(ARRAY['ann', 'dan']) AS u;
    SELECT exa_billing.set_organization_member('acme', 'ann', 'owner'),
           exa_billing.set_organization_member('acme', 'bob', 'billing_manager'),
           exa_billing.set_organization_member('acme', 'cat', 'member', 900000),
           exa_billing.set_organization_member('umbrella', 'dan', 'owner'),
           exa_billing.set_organization_member('umbrella', 'cat', 'member');
    SELECT exa_billing.grant_credit(kind, id, 700000 + length(id), at + interval '9 days', created_at => at - interval '2 days')
        FROM owners;
    SELECT exa_billing.grant_credit(kind, id, 300000, created_at => at - interval '2 days') FROM owners;
    SELECT exa_billing.record_exa_usage(u, '/search', 3000 + n, created_at => at - n * interval '50 minutes')
        FROM instant, unnest(ARRAY['ann', 'bob', 'cat', 'dan']) WITH ORDINALITY AS user_of(u, n);
    SELECT exa_billing.record_exa_usage(u, '/answer', 500 + n, o, created_at => at - n * interval '40 minutes')
        FROM instant, (VALUES ('ann', 'acme', 1), ('bob', 'acme', 2), ('cat', 'acme', 3), ('dan', 'umbrella', 4),
                              ('cat', 'umbrella', 5)) AS use_of(u, o, n);
    SELECT exa_billing.record_spend(kind, id, 40 + length(id), 'variable', 'kiloclaw', 'product-of-' || id,
                                    actor_user_id => 'cat', created_at => at - interval '90 minutes')
        FROM owners;
    SELECT exa_billing.record_degraded_interval('2026-01-01Z', '2026-01-02Z', 'of ' || id, kind, id) FROM owners;
    SELECT exa_billing.record_degraded_interval('2026-02-01Z', '2026-02-02Z', 'of all');";

/// More of the same, which stays in the queue.
const UNPOSTED: &str = "
    SELECT exa_billing.record_spend(kind, id, 7 + length(id), 'scheduled', 'coding_plan', 'new-of-' || id,
                                    created_at => at - interval '10 minutes') FROM owners;
    SELECT exa_billing.record_exa_usage(u, '/contents', 90 + n, created_at => at - interval '5 minutes')
        FROM instant, unnest(ARRAY['ann', 'bob', 'cat', 'dan']) WITH ORDINALITY AS user_of(u, n);
    SELECT exa_billing.record_exa_usage(u, '/search', 60 + n, o, created_at => at - interval '4 minutes')
        FROM instant, (VALUES ('ann', 'acme', 1), ('cat', 'acme', 3), ('cat', 'umbrella', 5)) AS use_of(u, o, n);
    INSERT INTO exa_billing.spend_alert_settings (owner_kind, owner_id, spend_alerts_enabled,
            anomaly_alerts_enabled, cost_suggestions_enabled, changed_at)
        SELECT kind, id, true, true, true, at FROM owners ON CONFLICT DO NOTHING;
    INSERT INTO exa_billing.spend_alert_states (owner_kind, owner_id, last_evaluated_at)
        SELECT kind, id, at FROM owners ON CONFLICT DO NOTHING;
    INSERT INTO exa_billing.cost_insight_events (event_id, owner_kind, owner_id, event_type, snapshot, occurred_at, recorded_at)
        SELECT gen_random_uuid(), kind, id, 'low_balance', '{}', at, at FROM owners;
    INSERT INTO exa_billing.spend_alert_episodes (owner_kind, owner_id, alert_kind, event_id, threshold_microdollars,
            started_at, snapshot)
        SELECT kind, id, 'threshold_24h', gen_random_uuid(), 5, at, '{}' FROM owners;
    INSERT INTO exa_billing.cost_suggestions (suggestion_id, owner_kind, owner_id, suggestion_kind, target, status,
            observed_microdollars, price_microdollars, window_start, window_end, content, created_at, grounded_at)
        SELECT gen_random_uuid(), kind, id, 'kilo_pass', 't', 'open', 5, 5, at - interval '1 day', at, '{}', at, at FROM owners;
    INSERT INTO exa_billing.notification_deliveries (delivery_id, event_id, owner_kind, owner_id, recipient_user_id,
            event_type, payload, status, attempt_count, next_attempt_at, occurred_at, created_at)
        SELECT gen_random_uuid(), gen_random_uuid(), kind, id, id, 'low_balance', '{}', 'pending', 0, at, at, at FROM owners;";

/// Roles belong to the whole server, so each database has names of its own; they go with it.
pub struct World {
    pub db: Database,
    pub admin: Client,
    /// The instant the books are read at.
    pub at: String,
    drops_roles: bool,
}

impl World {
    /// Books with something of everybody, posted and not, and staff; no row security yet.
    pub fn without_policies() -> World {
        World::of(Server::shared().books(), true)
    }

    pub fn of(db: Database, drops_roles: bool) -> World {
        let mut admin = db.client();
        run_sql(
            &mut admin,
            "SELECT exa_billing.setup();
             CREATE TABLE instant AS SELECT clock_timestamp() AS at;
             CREATE TABLE owners AS
                 SELECT 'user' AS kind, u AS id, at FROM instant, unnest(ARRAY['ann', 'bob', 'cat', 'dan']) AS u
                 UNION ALL SELECT 'organization', o, at FROM instant, unnest(ARRAY['acme', 'umbrella']) AS o;
             GRANT SELECT ON owners, instant TO PUBLIC;
             UPDATE exa_billing.spend_sources SET covered_from = covered_from - interval '3 days'",
        );
        run_sql(&mut admin, FILL);
        run_sql(&mut admin, "SELECT exa_billing.post_spend()");
        run_sql(&mut admin, UNPOSTED);
        let at = texts(&mut admin, "SELECT at::text FROM instant").remove(0);
        let mut world = World { db, admin, at, drops_roles };
        for kind in STAFF {
            world.create_role(kind);
            let role = world.role(kind);
            run_sql(&mut world.admin, &format!("SELECT exa_billing.grant_{kind}('{role}')"));
        }
        world
    }

    /// The same with row security, a role of end users that the application may become, and one
    /// that was given SELECT by hand.
    pub fn new() -> World {
        let mut world = World::without_policies();
        world.enable();
        world
    }

    pub fn enable(&mut self) {
        for role in ["web", "hand"] {
            self.create_role(role);
        }
        let (web, hand, app) = (self.role("web"), self.role("hand"), self.role("application"));
        run_sql(
            &mut self.admin,
            &format!(
                "SELECT exa_billing.enable_row_security();
                 SELECT exa_billing.grant_end_user('{web}'); GRANT {web} TO {app};
                 GRANT USAGE ON SCHEMA exa_billing TO {hand};
                 GRANT SELECT ON ALL TABLES IN SCHEMA exa_billing TO {hand};
                 GRANT EXECUTE ON ALL ROUTINES IN SCHEMA exa_billing TO {hand}"
            ),
        );
    }

    pub fn role(&self, what: &str) -> String {
        format!("{}_{what}", self.db.name())
    }

    pub fn create_role(&mut self, what: &str) {
        let role = self.role(what);
        run_sql(&mut self.admin, &format!("CREATE ROLE {role} LOGIN"));
    }

    pub fn as_role(&self, what: &str) -> Client {
        self.db.client_as(&self.role(what))
    }

    /// A session as an application has it that serves an end user.
    pub fn serving(&self, user: &str) -> Client {
        let mut client = self.as_role("application");
        let web = self.role("web");
        run_sql(&mut client, &format!("SET exa_billing.user_id = '{user}'; SET ROLE {web}"));
        client
    }

    /// Every table and view of the books, no partition.
    pub fn relations(&mut self) -> Vec<String> {
        texts(
            &mut self.admin,
            "SELECT relname::text FROM pg_class WHERE relnamespace = 'exa_billing'::regnamespace
             AND relkind IN ('r', 'p', 'v') AND NOT relispartition ORDER BY 1",
        )
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !self.drops_roles {
            return;
        }
        let pattern = format!("{}\\_%", self.db.name());
        let query =
            format!("SELECT quote_ident(rolname) FROM pg_roles WHERE rolname LIKE '{pattern}'");
        let Ok(rows) = self.admin.query(&query, &[]) else { return };
        let roles: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        for role in &roles {
            let _ = self.admin.batch_execute(&format!("DROP OWNED BY {role} CASCADE"));
        }
        for role in &roles {
            let _ = self.admin.batch_execute(&format!("DROP ROLE {role}"));
        }
    }
}

/// What a role reads of a relation, row by row.
pub fn rows_of(client: &mut Client, relation: &str, condition: &str) -> Vec<String> {
    texts(
        client,
        &format!("SELECT r::text FROM exa_billing.{relation} AS r WHERE {condition} ORDER BY 1"),
    )
}
