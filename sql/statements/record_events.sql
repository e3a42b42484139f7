-- Writes events, and for those somebody has to be told of one delivery per recipient: a user's go to
-- that user, an organization's to its owners and billing managers as they are now. Returns the ids
-- of the events that are new; one whose dedupe key is known is left out with its deliveries.
WITH new AS (
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) AS e(
        event_id, owner_kind, owner_id, event_type, alert_kind, suggestion_kind, about_id,
        actor_user_id, snapshot, dedupe_key, occurred_at, notify)
), recorded AS (
    INSERT INTO exa_billing.cost_insight_events
        (event_id, owner_kind, owner_id, event_type, alert_kind, suggestion_kind, about_id,
         actor_user_id, snapshot, dedupe_key, occurred_at, recorded_at)
    SELECT event_id, owner_kind, owner_id, event_type, alert_kind, suggestion_kind, about_id,
           actor_user_id, snapshot::jsonb, dedupe_key, occurred_at, $13
    FROM new
    ON CONFLICT ON CONSTRAINT cost_insight_events_once_key DO NOTHING
    RETURNING event_id, owner_kind, owner_id, event_type, alert_kind, snapshot, occurred_at
), delivered AS (
    INSERT INTO exa_billing.notification_deliveries
        (delivery_id, event_id, owner_kind, owner_id, recipient_user_id, event_type, alert_kind,
         payload, status, attempt_count, next_attempt_at, occurred_at, created_at)
    SELECT gen_random_uuid(), r.event_id, r.owner_kind, r.owner_id, who.user_id, r.event_type,
           r.alert_kind, r.snapshot, 'pending', 0, $13, r.occurred_at, $13
    FROM recorded AS r
    JOIN new ON new.event_id = r.event_id AND new.notify
    CROSS JOIN LATERAL (
        SELECT r.owner_id AS user_id WHERE r.owner_kind = 'user'
        UNION ALL
        SELECT m.user_id FROM exa_billing.organization_members AS m
        WHERE r.owner_kind = 'organization' AND m.organization_id = r.owner_id
          AND m.role IN ('owner', 'billing_manager')
    ) AS who
)
SELECT event_id FROM recorded
