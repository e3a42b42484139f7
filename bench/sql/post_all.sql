-- Posts until nothing is left, a batch to a transaction.
DO $$
BEGIN
    LOOP
        EXIT WHEN exa_billing.post_spend() = 0;
        COMMIT;
    END LOOP;
END
$$;
