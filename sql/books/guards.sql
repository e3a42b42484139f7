-- The guards of the books, re-applied by setup(): what was written stays as it was written.
--
-- The triggers are of statements, not of rows: they cost an INSERT nothing, they refuse even a
-- statement that would touch no row, and ALWAYS makes them fire under every
-- session_replication_role. Partitions get theirs when they are made.

CREATE OR REPLACE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON exa_billing.exa_usage_log
    FOR EACH STATEMENT EXECUTE FUNCTION exa_billing.refuse_change();
ALTER TABLE exa_billing.exa_usage_log ENABLE ALWAYS TRIGGER append_only;

CREATE OR REPLACE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON exa_billing.spend_log
    FOR EACH STATEMENT EXECUTE FUNCTION exa_billing.refuse_change();
ALTER TABLE exa_billing.spend_log ENABLE ALWAYS TRIGGER append_only;

CREATE OR REPLACE TRIGGER append_only BEFORE DELETE OR TRUNCATE OR UPDATE OF id, owner_kind, owner_id,
    amount_microdollars, expiry_date, credit_category, is_free, original_transaction_id, created_at,
    recorded_at ON exa_billing.credit_transactions
    FOR EACH STATEMENT EXECUTE FUNCTION exa_billing.refuse_change();
ALTER TABLE exa_billing.credit_transactions ENABLE ALWAYS TRIGGER append_only;

-- Its two baselines may change, but only inside the functions that keep them.
CREATE OR REPLACE TRIGGER by_functions_only BEFORE UPDATE OF
    original_baseline_microdollars_used, expiration_baseline_microdollars_used
    ON exa_billing.credit_transactions
    FOR EACH STATEMENT EXECUTE FUNCTION exa_billing.refuse_direct_change();
ALTER TABLE exa_billing.credit_transactions ENABLE ALWAYS TRIGGER by_functions_only;

-- Its free text may go, but only with the rest of what a user has left.
CREATE OR REPLACE TRIGGER by_erasure_only BEFORE UPDATE OF description
    ON exa_billing.credit_transactions
    FOR EACH STATEMENT EXECUTE FUNCTION exa_billing.refuse_direct_change();
ALTER TABLE exa_billing.credit_transactions ENABLE ALWAYS TRIGGER by_erasure_only;

CREATE OR REPLACE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON exa_billing.idempotency_keys
    FOR EACH STATEMENT EXECUTE FUNCTION exa_billing.refuse_change();
ALTER TABLE exa_billing.idempotency_keys ENABLE ALWAYS TRIGGER append_only;

CREATE OR REPLACE TRIGGER locked_in BEFORE DELETE OR TRUNCATE
    OR UPDATE OF user_id, month, free_allowance_microdollars, overage_rule
    ON exa_billing.exa_monthly_allowance
    FOR EACH STATEMENT EXECUTE FUNCTION exa_billing.refuse_change();
ALTER TABLE exa_billing.exa_monthly_allowance ENABLE ALWAYS TRIGGER locked_in;

-- Emptying the queue in one stroke would lose charges.
CREATE OR REPLACE TRIGGER no_truncate BEFORE TRUNCATE ON exa_billing.unposted_spend
    FOR EACH STATEMENT EXECUTE FUNCTION exa_billing.refuse_change();
ALTER TABLE exa_billing.unposted_spend ENABLE ALWAYS TRIGGER no_truncate;
