-- Has the spend of the owners ($1, $2) evaluated $4 microseconds from now; $3: whether this very
-- transaction may have charged. An owner gets no row of the evaluation queue when one waits that is
-- not due yet: it is not taken away before it is due, by somebody who then sees all that this
-- transaction has posted (the second between allows for the clock). That is not so of charges of this
-- very transaction, which may last. Nor does an owner get a row when one waits that nobody holds: it
-- is held until this commits, and who evaluates holds his rows before he looks. So nobody waits,
-- nothing is missed, and rows do not pile up.
INSERT INTO exa_billing.evaluation_queue (owner_kind, owner_id, entry_id, due_at, failure_count)
SELECT n.owner_kind, n.owner_id, gen_random_uuid(),
       clock_timestamp() + $4 * interval '1 microsecond', 0
FROM (
    SELECT o.owner_kind, o.owner_id FROM unnest($1, $2, $3) AS o(owner_kind, owner_id, may_be_own)
    WHERE o.may_be_own OR NOT EXISTS (
        SELECT FROM exa_billing.evaluation_queue AS e
        WHERE e.owner_kind = o.owner_kind AND e.owner_id = o.owner_id
          AND e.due_at > clock_timestamp() + interval '1 second')
    OFFSET 0 -- a wall for the planner: only their rows are held
) AS n
LEFT JOIN LATERAL (
    SELECT true AS is_held FROM exa_billing.evaluation_queue AS e
    WHERE e.owner_kind = n.owner_kind AND e.owner_id = n.owner_id
    LIMIT 1 FOR KEY SHARE SKIP LOCKED
) AS overdue ON true
WHERE overdue.is_held IS NULL
