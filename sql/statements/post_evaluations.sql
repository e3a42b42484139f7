-- Part of post_batch.sql: whose spend has to be evaluated.
-- $5: so many microseconds from now the spend of these owners is evaluated. An owner gets no row of
-- the evaluation queue when one waits that is not due yet: it is not taken away before it is due, by
-- somebody who then sees all that this statement sees (the second between allows for the clock).
-- That is not so of charges of this very transaction, which may last. Nor does an owner get a row
-- when one waits that nobody holds: it is held until this commits, and who evaluates
-- holds his rows before he looks. So nobody waits, nothing is missed, and rows do not pile up.
, not_waiting AS (
    SELECT p.owner_kind, p.owner_id FROM posted_accounts AS p
    WHERE NOT EXISTS (
        SELECT FROM exa_billing.evaluation_queue AS e
        WHERE e.owner_kind = p.owner_kind AND e.owner_id = p.owner_id
          AND e.due_at > clock_timestamp() + interval '1 second')
       OR EXISTS (
        SELECT FROM moved AS m
        WHERE m.may_be_own AND m.owner_kind = p.owner_kind AND m.owner_id = p.owner_id)
), held AS MATERIALIZED (
    SELECT n.owner_kind, n.owner_id FROM not_waiting AS n
    CROSS JOIN LATERAL (
        SELECT FROM exa_billing.evaluation_queue AS e
        WHERE e.owner_kind = n.owner_kind AND e.owner_id = n.owner_id
        LIMIT 1 FOR KEY SHARE SKIP LOCKED
    ) AS overdue
), evaluations AS (
    INSERT INTO exa_billing.evaluation_queue (owner_kind, owner_id, entry_id, due_at, failure_count)
    SELECT n.owner_kind, n.owner_id, gen_random_uuid(),
           clock_timestamp() + $5 * interval '1 microsecond', 0
    FROM not_waiting AS n
    WHERE NOT EXISTS (
        SELECT FROM held AS h WHERE h.owner_kind = n.owner_kind AND h.owner_id = n.owner_id)
)
