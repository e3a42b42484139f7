-- What the isolation specs share: an owner of their own for every permutation, instants to date things
-- by, states to begin with, and the verdict that each permutation ends with. tests/proof_isolation.rs
-- puts it into fresh books once per database.
--
-- States are procedures and not functions: what a CALL does is not shown, what a SELECT returns is.

CREATE SCHEMA stage;

DO $$
DECLARE
    partition regclass;
    name regclass;
BEGIN
    -- Vacuum shortens a table under a lock that nobody waits for who tells of a low balance: the message
    -- would sometimes be made a little later.
    FOR name IN
        SELECT oid FROM pg_class WHERE relnamespace = 'exa_billing'::regnamespace AND relkind = 'r'
    LOOP
        EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = false)', name);
    END LOOP;
    EXECUTE format('ALTER DATABASE %I SET search_path = exa_billing, stage, public', current_database());
    -- Everything happens in one hour that is over: no figure depends on when the specs are run.
    EXECUTE format('CREATE FUNCTION stage.at(minute int) RETURNS timestamptz LANGUAGE sql IMMUTABLE
                    AS $f$ SELECT %L::timestamptz + minute * interval ''1 minute'' $f$',
                   date_trunc('hour', clock_timestamp(), 'UTC') - interval '3 hours');
    -- Where a month is missing, it is the next one. Those after it would only take time to verify.
    EXECUTE format('CREATE FUNCTION stage.month() RETURNS text LANGUAGE sql IMMUTABLE AS $f$ SELECT %L $f$',
                   to_char(now() AT TIME ZONE 'UTC' + interval '1 month', 'YYYY_MM'));
    FOR partition IN
        SELECT inhrelid FROM pg_inherits JOIN pg_class AS c ON c.oid = inhrelid
        WHERE inhparent IN ('exa_billing.exa_usage_log'::regclass, 'exa_billing.spend_log'::regclass)
          AND right(c.relname, 7) COLLATE "C" > stage.month()
    LOOP
        EXECUTE 'DROP TABLE ' || partition;
    END LOOP;
END $$;

-- Nothing is free unless a spec says so, and mailers are served.
SELECT exa_billing.set_free_allowance(0, '2000-01-01');
SELECT exa_billing.start_worker();

CREATE SEQUENCE stage.permutation;
CREATE SEQUENCE stage.month_never_met;
-- A sequence is read as it is now on every snapshot, however old.
CREATE FUNCTION stage.u() RETURNS text LANGUAGE sql STABLE
    AS $$ SELECT 'user-' || last_value FROM stage.permutation $$;
CREATE FUNCTION stage.o() RETURNS text LANGUAGE sql STABLE
    AS $$ SELECT 'team-' || last_value FROM stage.permutation $$;

-- ---------------------------------------------------------------- states to begin with

-- A new user u() with so much credit, which never expires.
CREATE PROCEDURE stage.a_user(credit bigint) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM nextval('stage.permutation');
    IF credit > 0 THEN
        PERFORM exa_billing.grant_credit('user', stage.u(), credit, created_at => stage.at(0));
    END IF;
END $$;

-- So much is free for u() this month, and not for anybody else.
CREATE PROCEDURE stage.free(amount bigint, rule text DEFAULT 'whole') LANGUAGE sql AS $$
    SELECT exa_billing.set_free_allowance(
        amount, date_trunc('month', stage.at(0) AT TIME ZONE 'UTC')::date, stage.u(), rule)
$$;

-- u() has credit that expires at a minute of the hour.
CREATE PROCEDURE stage.expiring(amount bigint, minute int) LANGUAGE sql AS $$
    SELECT exa_billing.grant_credit('user', stage.u(), amount, stage.at(minute), created_at => stage.at(0))
$$;

-- u() has been charged, and it waits to be posted.
CREATE PROCEDURE stage.charged(amount bigint, minute int DEFAULT 5) LANGUAGE sql AS $$
    SELECT exa_billing.record_exa_usage(stage.u(), '/search', amount, created_at => stage.at(minute))
$$;

-- u() has done something for the organization o(), which waits to be posted.
CREATE PROCEDURE stage.charged_team(amount bigint) LANGUAGE sql AS $$
    SELECT exa_billing.record_spend('organization', stage.o(), amount, 'variable', 'other', 'seats',
                                    created_at => stage.at(5))
$$;

-- Nothing waits.
CREATE PROCEDURE stage.posted() LANGUAGE plpgsql AS $$
BEGIN
    WHILE EXISTS (SELECT FROM exa_billing.unposted_spend) LOOP
        PERFORM exa_billing.post_spend();
    END LOOP;
END $$;

-- Somebody has changed the account by hand, or the hour in which everything happens.
CREATE PROCEDURE stage.damaged_account(amount bigint) LANGUAGE plpgsql AS $$
BEGIN
    CALL stage.posted();
    UPDATE exa_billing.accounts SET microdollars_used = microdollars_used + amount
    WHERE owner_kind = 'user' AND owner_id = stage.u();
END $$;
CREATE PROCEDURE stage.damaged_hour(amount bigint) LANGUAGE plpgsql AS $$
BEGIN
    UPDATE exa_billing.spend_hourly_totals SET total_microdollars = total_microdollars + amount
    WHERE owner_kind = 'user' AND owner_id = stage.u();
    UPDATE exa_billing.spend_daily_totals SET total_microdollars = total_microdollars + amount
    WHERE owner_kind = 'user' AND owner_id = stage.u();
    UPDATE exa_billing.spend_hourly_drivers SET total_microdollars = total_microdollars + amount
    WHERE owner_kind = 'user' AND owner_id = stage.u();
END $$;

-- Or, past the guard, the baseline of credit that expires.
CREATE PROCEDURE stage.damaged_baseline(amount bigint) LANGUAGE plpgsql AS $$
BEGIN
    ALTER TABLE exa_billing.credit_transactions DISABLE TRIGGER by_functions_only;
    UPDATE exa_billing.credit_transactions
    SET expiration_baseline_microdollars_used = expiration_baseline_microdollars_used + amount
    WHERE owner_kind = 'user' AND owner_id = stage.u() AND expiry_date IS NOT NULL;
    ALTER TABLE exa_billing.credit_transactions ENABLE ALWAYS TRIGGER by_functions_only;
END $$;

-- u() wants to hear of this. (A spec's SQL cannot have braces in it.)
CREATE PROCEDURE stage.wants(changes jsonb) LANGUAGE sql AS $$
    SELECT exa_billing.update_spend_alert_settings('user', stage.u(), changes, stage.u(), stage.at(1))
$$;

-- u() wants to hear when the spend of 24 hours reaches this.
CREATE PROCEDURE stage.wants_threshold(amount bigint) LANGUAGE plpgsql AS $$
BEGIN
    CALL stage.wants(jsonb_build_object('spend_alerts_enabled', true, 'threshold_24h_microdollars', amount));
END $$;

-- u() wants to hear when the balance falls below this.
CREATE PROCEDURE stage.wants_minimum(amount bigint) LANGUAGE plpgsql AS $$
BEGIN
    CALL stage.wants(jsonb_build_object('minimum_balance_microdollars', amount));
END $$;

-- The evaluation that posting has asked for is due.
CREATE PROCEDURE stage.evaluation_due() LANGUAGE sql AS $$
    UPDATE exa_billing.evaluation_queue SET due_at = now() - interval '1 hour'
$$;

-- Whatever there is to tell of the spend of u() is told.
CREATE PROCEDURE stage.evaluated() LANGUAGE sql AS $$
    SELECT exa_billing.evaluate_spend_alerts('user', stage.u())
$$;

-- One delivery waits for a mailer: u() has less than it wanted to have.
CREATE PROCEDURE stage.told() LANGUAGE plpgsql AS $$
BEGIN
    CALL stage.wants_minimum(1000000);
    PERFORM exa_billing.adjust_credit('user', stage.u(), -1, 'why');
END $$;

-- The next month is not there.
CREATE PROCEDURE stage.a_month_missing() LANGUAGE plpgsql AS $$
BEGIN
    PERFORM nextval('stage.month_never_met');
    EXECUTE format('DROP TABLE IF EXISTS exa_billing.exa_usage_log_%1$s, exa_billing.spend_log_%1$s',
                   stage.month());
END $$;

-- An instant in another month that has no partition: another one for each permutation, and so far back
-- that only sessions that have raised the limit may record it.
CREATE FUNCTION stage.a_month_never_met() RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT date_trunc('month', stage.at(0), 'UTC') - interval '1 year' - last_value * interval '1 month'
    FROM stage.month_never_met
$$;

-- A table of the application in which u() has spent 7.
CREATE PROCEDURE stage.a_ledger() LANGUAGE plpgsql AS $$
BEGIN
    CREATE TABLE public.ledger (who text, team text, cost bigint, at timestamptz);
    CREATE INDEX ON public.ledger (who, at);
    CREATE INDEX ON public.ledger (team, at);
    INSERT INTO public.ledger VALUES (stage.u(), NULL, 7, stage.at(4));
END $$;

-- Attaches it, with what is in it.
CREATE FUNCTION stage.attach(source_name text DEFAULT 'ledger', relation regclass DEFAULT NULL)
RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    RETURN exa_billing.attach_spend_source(
        source_name, coalesce(relation, 'public.ledger'), 'variable', 'ai_gateway',
        '{"user_id": "who", "organization_id": "team", "amount": "cost", "created_at": "at"}',
        backfill => true);
END $$;

-- Takes the transaction's snapshot, where it has only one.
CREATE PROCEDURE stage.look() LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM exa_billing.suggestion_rules;
END $$;

-- ---------------------------------------------------------------- the verdict

-- All that the races are about, of u().
CREATE TYPE stage.figures AS (
    balance bigint,
    acquired bigint,
    used bigint,      -- posted and waiting
    posted bigint,
    waiting bigint,   -- rows of the queue
    requests bigint,
    cost bigint,
    charged bigint,   -- of the requests, for whomever
    free bigint,      -- counted against the allowance
    allowances bigint,
    spends bigint,    -- rows of spend_log
    keys bigint,
    transactions bigint,
    closures bigint,
    expired bigint,
    adjustments bigint,
    stale bigint,     -- baselines that a recompute would correct
    late bigint,      -- charges dated before a closure that did not know them
    hourly bigint,    -- by the rollups, posted and waiting
    due bigint,       -- rows of the evaluation queue
    changes bigint,
    crossed bigint,
    recovered bigint,
    disabled bigint,
    low bigint,
    episodes bigint,
    deliveries bigint,
    attempts bigint,
    sources bigint,   -- tables attached
    months bigint,    -- partitions of month()
    team_balance bigint,
    team_used bigint
);

CREATE FUNCTION stage.figures() RETURNS stage.figures LANGUAGE sql VOLATILE AS $$
    WITH owner AS MATERIALIZED (SELECT stage.u() AS id, stage.o() AS team),
    spent AS MATERIALIZED (
        SELECT count(*) AS requests, coalesce(sum(cost_microdollars), 0) AS cost,
               coalesce(sum(charged_microdollars), 0) AS charged
        FROM exa_billing.exa_usage_log WHERE user_id = (SELECT id FROM owner)),
    allowed AS MATERIALIZED (
        SELECT count(*) AS allowances, coalesce(sum(used_microdollars), 0) AS free
        FROM exa_billing.exa_monthly_allowance WHERE user_id = (SELECT id FROM owner)),
    credit AS MATERIALIZED (
        SELECT count(*) AS transactions, count(original_transaction_id) AS closures,
               coalesce(-sum(amount_microdollars) FILTER (WHERE original_transaction_id IS NOT NULL), 0)
                   AS expired,
               count(*) FILTER (WHERE credit_category = 'accounting_adjustment') AS adjustments
        FROM exa_billing.credit_transactions
        WHERE owner_kind = 'user' AND owner_id = (SELECT id FROM owner)),
    event AS MATERIALIZED (
        SELECT count(*) FILTER (WHERE event_type = 'config_changed') AS changes,
               count(*) FILTER (WHERE event_type = 'threshold_crossed') AS crossed,
               count(*) FILTER (WHERE event_type = 'recovered') AS recovered,
               count(*) FILTER (WHERE event_type = 'disabled') AS disabled,
               count(*) FILTER (WHERE event_type = 'low_balance') AS low
        FROM exa_billing.cost_insight_events
        WHERE owner_kind = 'user' AND owner_id = (SELECT id FROM owner)),
    delivery AS MATERIALIZED (
        SELECT count(*) AS deliveries, coalesce(sum(attempt_count), 0) AS attempts
        FROM exa_billing.notification_deliveries
        WHERE owner_kind = 'user' AND owner_id = (SELECT id FROM owner))
    SELECT balance.balance_microdollars, balance.total_microdollars_acquired,
           balance.microdollars_used,
           coalesce((SELECT a.microdollars_used FROM exa_billing.accounts AS a
                     WHERE a.owner_kind = 'user' AND a.owner_id = owner.id), 0),
           (SELECT count(*) FROM exa_billing.unposted_spend AS q
            WHERE q.owner_kind = 'user' AND q.owner_id = owner.id),
           spent.requests, spent.cost::bigint, spent.charged::bigint, allowed.free::bigint,
           allowed.allowances,
           (SELECT count(*) FROM exa_billing.spend_log AS s
            WHERE s.owner_kind = 'user' AND s.owner_id = owner.id),
           (SELECT count(*) FROM exa_billing.idempotency_keys AS k
            WHERE k.key_space IN ('exa/' || owner.id, 'credit/user/' || owner.id)),
           credit.transactions, credit.closures, credit.expired::bigint, credit.adjustments,
           plan.original_baselines_changed + plan.expiration_baselines_changed, plan.late_arrivals,
           (SELECT coalesce(sum(h.total_microdollars), 0)::bigint FROM exa_billing.spend_hourly AS h
            WHERE h.owner_kind = 'user' AND h.owner_id = owner.id),
           (SELECT count(*) FROM exa_billing.evaluation_queue AS e
            WHERE e.owner_kind = 'user' AND e.owner_id = owner.id),
           event.changes, event.crossed, event.recovered, event.disabled, event.low,
           (SELECT count(*) FROM exa_billing.spend_alert_episodes AS e
            WHERE e.owner_kind = 'user' AND e.owner_id = owner.id),
           delivery.deliveries, delivery.attempts::bigint,
           (SELECT count(*) FROM exa_billing.spend_sources AS s
            WHERE s.source_name = 'ledger' AND s.detached_at IS NULL),
           (SELECT count(*) FROM pg_catalog.pg_class AS c
            WHERE c.relnamespace = 'exa_billing'::regnamespace AND c.relispartition
              AND c.relname IN ('exa_usage_log_' || stage.month(), 'spend_log_' || stage.month())
              AND c.relkind = 'r'),
           team.balance_microdollars, team.microdollars_used
    FROM owner, spent, allowed, credit, event, delivery,
         exa_billing.account_balance('user', owner.id) AS balance,
         exa_billing.account_balance('organization', owner.team) AS team,
         exa_billing.recompute_user_balances(owner.id, dry_run => true) AS plan
$$;

-- Those that are not zero, in words; months only where they are missing, and not the evaluations that
-- are due: after some seconds there may be one more.
CREATE FUNCTION stage.told_of(figures stage.figures) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT string_agg(replace(key, '_', ' ') || ' ' || value, ', ' ORDER BY place)
    FROM json_each_text(row_to_json(figures)) WITH ORDINALITY AS f(key, value, place)
    WHERE CASE key WHEN 'months' THEN value <> '2' WHEN 'due' THEN false ELSE value <> '0' END
$$;

-- What does not change when everything that waits is posted.
CREATE FUNCTION stage.lasting(f stage.figures) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT concat_ws(' ', f.balance, f.acquired, f.used, f.requests, f.cost, f.charged, f.free,
                     f.allowances, f.spends, f.keys, f.transactions, f.closures, f.expired,
                     f.adjustments, f.stale, f.late, f.hourly, f.team_balance, f.team_used)
$$;

-- What is not as it has to be after any race, whatever it was about.
CREATE FUNCTION stage.faults(promise text, before stage.figures) RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
    kept boolean;
    later stage.figures;
    plan exa_billing.recompute_result;
BEGIN
    EXECUTE format('SELECT %s FROM (SELECT ($1).*) AS figures', promise) INTO kept USING before;
    IF kept IS NOT TRUE THEN RETURN NEXT 'not as promised'; END IF;
    RETURN QUERY SELECT 'before posting: ' || v::text FROM exa_billing.verify_books() AS v;
    CALL stage.posted();
    later := stage.figures();
    IF stage.lasting(before) <> stage.lasting(later) THEN
        RETURN NEXT 'posting has changed it to ' || stage.told_of(later);
    END IF;
    IF later.posted <> later.used THEN RETURN NEXT 'not all is posted'; END IF;
    IF later.hourly <> later.used THEN RETURN NEXT 'rollups and balance differ'; END IF;
    IF exa_billing.rebuild_rollups('user', stage.u(), stage.at(-180), stage.at(180)) <> 0 THEN
        RETURN NEXT 'rollups had to be rebuilt';
    END IF;
    plan := exa_billing.recompute_user_balances(stage.u(), dry_run => true);
    IF plan.new_microdollars_used <> later.used OR plan.balance_error_microdollars <> 0 THEN
        RETURN NEXT 'the journals say otherwise: ' || plan::text;
    END IF;
    RETURN QUERY SELECT 'after posting: ' || v::text FROM exa_billing.verify_books('user', stage.u()) AS v;
END $$;

-- Nothing is left that the next permutation could meet.
CREATE PROCEDURE stage.cleared() LANGUAGE plpgsql AS $$
BEGIN
    PERFORM exa_billing.detach_spend_source(source_name) FROM exa_billing.spend_sources
        WHERE source_name = 'ledger' AND detached_at IS NULL;
    IF to_regclass('public.ledger') IS NOT NULL THEN
        DROP TABLE public.ledger;
        -- The next table of that name is another one.
        DELETE FROM exa_billing.spend_sources WHERE source_name = 'ledger';
    END IF;
    PERFORM exa_billing.expire_due_credits();
    CALL stage.posted();
    DELETE FROM exa_billing.evaluation_queue;
    DELETE FROM exa_billing.notification_deliveries;
END $$;

-- Ends a permutation: whether the books are sound and what the spec promises of the figures is so, and
-- what the figures are.
CREATE FUNCTION stage.verdict(promise text, OUT verdict text, OUT figures text) LANGUAGE plpgsql AS $$
DECLARE
    before stage.figures := stage.figures();
BEGIN
    figures := stage.told_of(before);
    SELECT coalesce('BROKEN: ' || string_agg(fault, '; '), 'clean and as promised') INTO verdict
        FROM stage.faults(promise, before) AS fault;
    CALL stage.cleared();
END $$;
