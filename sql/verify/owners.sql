-- What holds per owner, over all months. $1 and $2 the owner to look at (null: all). An account's
-- posted usage is compared with the sum of its posted hours; month.sql compares hours with journals.
WITH violations AS (
    SELECT 'I3' AS invariant, owner_kind, owner_id, hours.amount AS expected, account.amount AS actual,
           'usage of the account against the sum of its hours' AS detail
    FROM (
        SELECT owner_kind, owner_id, microdollars_used::numeric AS amount FROM exa_billing.accounts
    ) AS account
    FULL JOIN (
        SELECT owner_kind, owner_id, sum(total_microdollars) AS amount
        FROM exa_billing.spend_hourly_totals
        WHERE $1 IS NULL OR (owner_kind = $1 AND owner_id = $2)
        GROUP BY owner_kind, owner_id
    ) AS hours USING (owner_kind, owner_id)
    WHERE coalesce(account.amount, 0) <> coalesce(hours.amount, 0)
      AND ($1 IS NULL OR (owner_kind = $1 AND owner_id = $2))

    UNION ALL
    SELECT 'I4', owner_kind, owner_id, booked.amount, account.amount,
           'credits of the account against its transactions'
    FROM (
        SELECT owner_kind, owner_id, total_microdollars_acquired::numeric AS amount FROM exa_billing.accounts
    ) AS account
    FULL JOIN (
        SELECT owner_kind, owner_id, sum(amount_microdollars) AS amount
        FROM exa_billing.credit_transactions
        WHERE $1 IS NULL OR (owner_kind = $1 AND owner_id = $2)
        GROUP BY owner_kind, owner_id
    ) AS booked USING (owner_kind, owner_id)
    WHERE coalesce(account.amount, 0) <> coalesce(booked.amount, 0)
      AND ($1 IS NULL OR (owner_kind = $1 AND owner_id = $2))

    UNION ALL
    SELECT 'I7', owner_kind, owner_id, opened.amount_microdollars, -closed.amount_microdollars,
           format('grant %s is closed for more than its amount', opened.id)
    FROM exa_billing.credit_transactions AS closed
    JOIN exa_billing.credit_transactions AS opened USING (owner_kind, owner_id)
    WHERE opened.id = closed.original_transaction_id
      AND NOT (-opened.amount_microdollars <= closed.amount_microdollars AND closed.amount_microdollars <= 0)
      AND ($1 IS NULL OR (owner_kind = $1 AND owner_id = $2))
)
SELECT invariant, owner_kind::text, owner_id::text, NULL::text, expected::text, actual::text, detail
FROM violations
