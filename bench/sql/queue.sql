-- Fills the queue with :batches batches of 10,000 charges of 20,000 users.
SELECT count(*) FROM generate_series(1, :batches) AS batch, exa_billing.record_exa_usage_batch((
    SELECT jsonb_agg(jsonb_build_object('user_id', 'user-' || 1 + (batch * 7919 + n * 13) % 20000,
                                        'path', '/search', 'cost_microdollars', 5000))
    FROM generate_series(1, 10000) AS n));
