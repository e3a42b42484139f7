-- What holds per owner, over all months. $1 and $2 the owners to look at, of one kind (null: all), $3 the
-- place of this queue. An account's posted usage is compared with the sum of its posted hours; month.sql
-- compares hours with journals.
WITH violations AS (
    SELECT 'I3' AS invariant, owner_kind, owner_id, hours.amount AS expected, account.amount AS actual,
           'usage of the account against the sum of its hours' AS detail
    FROM (
        SELECT owner_kind, owner_id, microdollars_used::numeric AS amount FROM exa_billing.accounts
        WHERE $1 IS NULL OR (owner_kind = $1 AND owner_id = ANY ($2))
    ) AS account
    FULL JOIN (
        SELECT owner_kind, owner_id, sum(total_microdollars) AS amount
        FROM exa_billing.spend_hourly_totals
        WHERE $1 IS NULL OR (owner_kind = $1 AND owner_id = ANY ($2))
        GROUP BY owner_kind, owner_id
    ) AS hours USING (owner_kind, owner_id)
    WHERE coalesce(account.amount, 0) <> coalesce(hours.amount, 0)

    UNION ALL -- readers of a balance begin where the account says that nothing waits before
    SELECT 'I3', q.owner_kind, q.owner_id, a.posted_before::text::numeric, min(q.transaction_id)::text::numeric,
           'the first transaction that may have queued rows that wait, against one that has'
    FROM exa_billing.unposted_spend AS q
    JOIN exa_billing.accounts AS a ON a.owner_kind = q.owner_kind AND a.owner_id = q.owner_id
    WHERE a.posted_where = $3 AND q.transaction_id < a.posted_before
      AND ($1 IS NULL OR (q.owner_kind = $1 AND q.owner_id = ANY ($2)))
      AND ($1 IS NULL OR (a.owner_kind = $1 AND a.owner_id = ANY ($2)))
    GROUP BY q.owner_kind, q.owner_id, a.posted_before

    UNION ALL
    SELECT 'I4', owner_kind, owner_id, booked.amount, account.amount,
           'credits of the account against its transactions'
    FROM (
        SELECT owner_kind, owner_id, total_microdollars_acquired::numeric AS amount FROM exa_billing.accounts
        WHERE $1 IS NULL OR (owner_kind = $1 AND owner_id = ANY ($2))
    ) AS account
    FULL JOIN (
        SELECT owner_kind, owner_id, sum(amount_microdollars) AS amount
        FROM exa_billing.credit_transactions
        WHERE $1 IS NULL OR (owner_kind = $1 AND owner_id = ANY ($2))
        GROUP BY owner_kind, owner_id
    ) AS booked USING (owner_kind, owner_id)
    WHERE coalesce(account.amount, 0) <> coalesce(booked.amount, 0)

    UNION ALL
    SELECT 'I7', owner_kind, owner_id, amount, closed,
           format('grant %s is closed %s times, or for more than its amount', id, closures)
    FROM (
        SELECT opened.id, opened.owner_kind, opened.owner_id, opened.amount_microdollars AS amount,
               -sum(closing.amount_microdollars) AS closed, count(*) AS closures
        FROM exa_billing.credit_transactions AS closing
        JOIN exa_billing.credit_transactions AS opened
            ON opened.id = closing.original_transaction_id
        WHERE $1 IS NULL OR (opened.owner_kind = $1 AND opened.owner_id = ANY ($2))
        GROUP BY opened.id
    ) AS grants
    WHERE closures > 1 OR NOT (0 <= closed AND closed <= amount)

    UNION ALL -- closing again finds the grant closed: a closing row has its grant, and no other date
    SELECT 'I8', closed.owner_kind, closed.owner_id, NULL, closed.amount_microdollars,
           format('closing row %s has no expiring grant of its owner, or is dated after its expiry', closed.id)
    FROM exa_billing.credit_transactions AS closed
    LEFT JOIN exa_billing.credit_transactions AS opened
        ON opened.id = closed.original_transaction_id AND opened.owner_kind = closed.owner_kind
       AND opened.owner_id = closed.owner_id
    WHERE closed.original_transaction_id IS NOT NULL
      AND (opened.expiry_date IS NULL OR closed.created_at > opened.expiry_date)
      AND ($1 IS NULL OR (closed.owner_kind = $1 AND closed.owner_id = ANY ($2)))

    UNION ALL -- expiring again finds what is due: the account knows when its next grant expires
    SELECT 'I8', a.owner_kind, a.owner_id, extract(epoch FROM due.next), extract(epoch FROM a.next_credit_expiration_at),
           'the account''s next expiration against its open grants, in seconds since 1970'
    FROM exa_billing.accounts AS a
    LEFT JOIN (
        SELECT owner_kind, owner_id, min(expiry_date) AS next
        FROM exa_billing.credit_transactions AS g
        WHERE expiry_date IS NOT NULL AND NOT EXISTS (
            SELECT FROM exa_billing.credit_transactions AS c WHERE c.original_transaction_id = g.id)
          AND ($1 IS NULL OR (owner_kind = $1 AND owner_id = ANY ($2)))
        GROUP BY owner_kind, owner_id
    ) AS due USING (owner_kind, owner_id)
    WHERE a.next_credit_expiration_at IS DISTINCT FROM due.next
      AND ($1 IS NULL OR (a.owner_kind = $1 AND a.owner_id = ANY ($2)))

    UNION ALL -- baselines only ever rise
    SELECT 'I7', owner_kind, owner_id, original_baseline_microdollars_used,
           expiration_baseline_microdollars_used, format('grant %s claims usage from before it', id)
    FROM exa_billing.credit_transactions
    WHERE expiration_baseline_microdollars_used < original_baseline_microdollars_used
      AND ($1 IS NULL OR (owner_kind = $1 AND owner_id = ANY ($2)))
)
SELECT invariant, owner_kind::text, owner_id::text, NULL::text, expected::text, actual::text, detail
FROM violations
