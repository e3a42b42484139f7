-- Rows that belong to the books from the start. Put back by setup() also after a restore that left
-- the rows out.

-- What the charging path names by itself, so that it never has to look a dimension up.
INSERT INTO exa_billing.spend_dimensions
    (dimension_id, spend_category, source, product_key, feature_key, model_or_plan_key, provider_key)
VALUES
    ('00000000-0000-8000-8000-657861000001', 'variable', 'other', 'exa', 'search', 'other', 'exa'),
    ('00000000-0000-8000-8000-657861000002', 'variable', 'other', 'exa', 'contents', 'other', 'exa'),
    ('00000000-0000-8000-8000-657861000003', 'variable', 'other', 'exa', 'findSimilar', 'other', 'exa'),
    ('00000000-0000-8000-8000-657861000004', 'variable', 'other', 'exa', 'answer', 'other', 'exa'),
    ('00000000-0000-8000-8000-657861000005', 'variable', 'other', 'exa', 'context', 'other', 'exa'),
    ('00000000-0000-8000-8000-657861000006', 'variable', 'other', 'exa', 'other', 'other', 'exa')
ON CONFLICT DO NOTHING;

-- The product's own journals, captured from the hour the books are made.
INSERT INTO exa_billing.spend_sources
    (source_name, is_own, relation_schema, relation_name, covered_from, attached_at)
SELECT source_name, true, 'exa_billing', relation_name, date_trunc('hour', now(), 'UTC'), now()
FROM (VALUES ('exa', 'exa_usage_log'), ('spend', 'spend_log')) AS own(source_name, relation_name)
ON CONFLICT DO NOTHING;
