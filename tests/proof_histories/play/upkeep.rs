//! What works on everybody's books now and then, and mishaps that it has to put right.

use super::{Play, STRICT};
use crate::check;
use crate::model::calendar::{DAY, HOUR, MINUTE, day_of, day_text, hour_of, literal, now};
use crate::model::evidence::known_from;
use crate::model::usage::Pay;
use crate::model::{At, Charge, Owner};
use crate::place::count;
use crate::step::{Step, of_owner, text, whose};

/// A figure that somebody has damaged.
struct Damage {
    owner: Owner,
    hour: At,
    /// Found by comparing hours, not only by the owner's own repair.
    is_of_hours: bool,
}

impl Play<'_> {
    /// What an operator may call when nobody else is at work.
    pub fn look_after(&mut self) {
        self.end_beside();
        self.come_late();
        self.recompute_all();
        self.mishap();
    }

    /// A charge from before an entry, of which the entry does not know yet.
    fn come_late(&mut self) {
        let cast = self.scene.cast.clone();
        let owners = cast.owners();
        let has_any = |owner: &&Owner| self.model.entries_of(owner).next().is_some();
        let Some(owner) = owners.iter().find(has_any) else { return };
        let entry = self.model.entries_of(owner).last().expect("it has one");
        let at = Some(entry.at - 1);
        let (owner, amount, require_balance) = (owner.clone(), 5, false);
        let pay = Pay { owner, amount, at, require_balance, key: None, ..self.scene.pay(&cast) };
        self.step(0, Step::Pay(pay));
    }

    /// Everybody's baselines are put right: own ones to what the model says. Then there is nothing
    /// left to change.
    fn recompute_all(&mut self) {
        let own = self.scene.cast.owners();
        let is_stale = |owner: &&Owner| {
            let stored: Vec<_> = self.model.entries_of(owner).cloned().collect();
            stored != self.model.recomputed(owner)
        };
        let stale = own.iter().filter(is_stale).count();
        let keep_balance = self.scene.percent(50);
        let done = self.changed_by(&format!("recompute_all_balances(false, {keep_balance})"));
        // Former histories may have left some of theirs.
        if done < stale {
            self.fail(&format!(
                "{done} were recomputed; {stale} should have been, only of the own"
            ));
        }
        own.iter().for_each(|owner| _ = self.model.recompute(owner));
        let left = self.changed_by(&format!("recompute_all_balances(true, {keep_balance})"));
        if left != 0 {
            self.fail(&format!("{left} are to be recomputed once more"));
        }
        self.see_all_journals();
    }

    /// How many owners a long procedure has changed, or would.
    fn changed_by(&mut self, call: &str) -> usize {
        let session = self.idle_session();
        self.told(session, &format!("call exa_billing.{call}"));
        let last = "select null, null, (changed + failed)::text from exa_billing.progress
            order by started_at desc limit 1";
        self.told(session, last).parse().expect("a number of owners")
    }

    fn see_all_journals(&mut self) {
        for owner in self.scene.cast.owners() {
            let looks = check::journals(&self.model, &owner);
            self.see(0, looks);
        }
    }

    /// Somebody damages a rollup by hand. It is found, put right by one of the ways there are, and
    /// then there is nothing left to put right; without damage there never was.
    pub fn mishap(&mut self) {
        self.step(0, Step::Post { max_rows: 1_000_000 });
        let session = self.scene.rng.usize(..STRICT);
        let Some(damage) = self.damage(session) else { return };
        let (owner, hour) = (whose(&damage.owner), damage.hour);
        let found = format!("(select count(*) > 0 from exa_billing.verify_books({owner}))");
        self.exactly(session, &format!("select null, null, {found}"), "t");
        if damage.is_of_hours && hour >= known_from() && self.scene.percent(50) {
            self.backfill(&damage);
        } else {
            let hours = format!("{}, {}", literal(hour), literal(hour + HOUR));
            let rebuild =
                format!("select null, null, exa_billing.rebuild_rollups({owner}, {hours})");
            self.exactly(session, &rebuild, "1");
            self.exactly(session, &rebuild, "0");
        }
        let model = self.model.clone();
        let users = self.scene.cast.users.clone();
        let mut looks = check::money_journals(&model, &damage.owner);
        looks.extend(self.some_looks(&model, &damage.owner, &users, 3));
        self.see(session, looks);
    }

    /// The day of the damage is reconciled, then filled up: whose hours differ is one owner.
    fn backfill(&mut self, damage: &Damage) {
        let from = day_of(damage.hour).max(known_from());
        let (from, to) = (literal(from), literal(day_of(damage.hour) + DAY));
        let own = of_owner(&damage.owner);
        let found = format!(
            "select null, null, count(distinct hour_start) from exa_billing.reconcile_rollups({from}, {to})
             where {own} and mismatch_type not in ('unknown_taxonomy_value', 'coverage_hole')"
        );
        self.exactly(0, &found, "1");
        for (dry_run, expected) in [(true, 1), (false, 1), (false, 0)] {
            let changed = self.changed_by(&format!("backfill_rollups({from}, {to}, {dry_run})"));
            if changed != expected {
                self.fail(&format!("{expected} should have been filled up, not {changed}"));
            }
        }
        self.exactly(0, &found, "0");
    }

    /// Lowers or deletes one of the figures of a charge, as a mishap with psql might.
    fn damage(&mut self, session: usize) -> Option<Damage> {
        let charges = self.model.charges();
        let charges: Vec<Charge> = charges.into_iter().filter(|one| one.at < now()).collect();
        if charges.is_empty() {
            return None;
        }
        let charge = self.scene.pick(&charges);
        let (hour, owner) = (hour_of(charge.at), charge.owner);
        let (mut target, start) = self.scene.pick(&[
            ("spend_hourly_totals", "hour_start"),
            ("spend_hourly_drivers", "hour_start"),
            ("spend_daily_totals", "day_start"),
        ]);
        let is_of_hours = start == "hour_start";
        let begin = if is_of_hours { literal(hour) } else { literal(day_of(charge.at)) };
        let mut rows = format!("{} and {start} = {begin}", of_owner(&owner));
        let mut figure = self.scene.pick(&["total_microdollars", "spend_record_count"]);
        let is_counted = owner.is_organization && charge.purpose.category == "variable";
        if let Some(actor) = charge.actor.filter(|_| is_counted && self.scene.percent(40)) {
            (target, figure) = ("organization_member_usage", "microdollars_used");
            let (team, day) = (text(&owner.id), day_text(charge.at));
            let actor = text(&actor);
            rows =
                format!("organization_id = {team} and user_id = {actor} and usage_date = '{day}'");
        }
        let one = format!(
            "ctid = (select ctid from exa_billing.{target} where {rows} order by {figure} limit 1)"
        );
        let harm = if self.scene.percent(50) {
            format!("delete from exa_billing.{target} where {one}")
        } else {
            format!("update exa_billing.{target} set {figure} = {figure} - 1 where {one}")
        };
        let harm =
            format!("with gone as ({harm} returning 1) select null, null, count(*) from gone");
        self.exactly(session, &harm, "1");
        count("mishaps", 1);
        let is_of_hours = is_of_hours && target != "organization_member_usage";
        Some(Damage { owner, hour, is_of_hours })
    }

    /// One round of all background work at the end of a history. By which clock alerts are evaluated
    /// only the product knows, so money alone is compared after it.
    pub fn maintain(&mut self) {
        let clock = now();
        let is_near = |at: At| (clock - HOUR..clock + HOUR).contains(&at);
        if self.model.entries.iter().filter_map(|entry| entry.expiry).any(is_near) {
            return;
        }
        self.told(0, "call exa_billing.run_maintenance()");
        self.model.post(&[]);
        let owners = self.scene.cast.owners();
        for owner in &owners {
            self.model.expire(owner, clock - MINUTE, clock).expect("it is past");
        }
        // Messages that nobody took are what histories are about.
        self.exactly(
            0,
            "select null, null, string_agg(h::text, ' ') from exa_billing.health as h
             where status = 'critical' and name <> 'deliveries dead'",
            "",
        );
        self.place.drop_empty_months();
        let (model, users, as_of) = (&self.model.clone(), &self.scene.cast.users.clone(), clock);
        for owner in &owners {
            let view = check::View { model, owner, users, as_of, draw: 0 };
            let mut looks: Vec<_> =
                check::money().map(|(look_at, name)| look_at(&view, name)).collect();
            looks.extend(check::money_journals(model, owner));
            self.see(0, looks);
        }
    }
}
