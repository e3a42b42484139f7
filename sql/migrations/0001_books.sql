-- The books, first version.
--
-- Locks: only tables made here. Texts that are compared or sorted are COLLATE "C": the order of
-- bytes is the order in which rows are locked, it is the fastest, and no upgrade of the operating
-- system's collations can damage an index. No column has a default: every writer says every value.

CREATE TABLE exa_billing.storage_migrations (
    version int NOT NULL,
    name text NOT NULL,
    library_version text NOT NULL,
    applied_at timestamptz NOT NULL,
    CONSTRAINT storage_migrations_pkey PRIMARY KEY (version)
);
COMMENT ON TABLE exa_billing.storage_migrations IS
    'The storage migrations that setup() has applied; the highest version is that of the books.';

CREATE TABLE exa_billing.applied_scripts (
    script_name text COLLATE "C" NOT NULL,
    content_hash text COLLATE "C" NOT NULL,
    applied_at timestamptz NOT NULL,
    CONSTRAINT applied_scripts_pkey PRIMARY KEY (script_name)
);
COMMENT ON TABLE exa_billing.applied_scripts IS
    'Which text of views and guards was applied last: setup() applies one again only when it has changed or something of it is missing, so that it takes no lock in vain and keeps what was changed by hand.';

-- Posted state ------------------------------------------------------------------------------

CREATE TABLE exa_billing.accounts (
    owner_kind text COLLATE "C" NOT NULL,
    owner_id text COLLATE "C" NOT NULL,
    total_microdollars_acquired bigint NOT NULL,
    microdollars_used bigint NOT NULL,
    next_credit_expiration_at timestamptz,
    minimum_balance_microdollars bigint,
    low_balance_since timestamptz,
    opened_at timestamptz NOT NULL,
    posted_before xid8,
    posted_where bigint,
    CONSTRAINT accounts_pkey PRIMARY KEY (owner_kind, owner_id),
    CONSTRAINT accounts_owner_kind_check CHECK (owner_kind IN ('user', 'organization')),
    CONSTRAINT accounts_minimum_balance_check CHECK (minimum_balance_microdollars > 0)
) WITH (fillfactor = 40);
CREATE INDEX accounts_next_expiration_idx ON exa_billing.accounts (next_credit_expiration_at)
    WHERE next_credit_expiration_at IS NOT NULL;
CREATE INDEX accounts_minimum_idx ON exa_billing.accounts (owner_kind, owner_id)
    WHERE minimum_balance_microdollars IS NOT NULL AND low_balance_since IS NULL;
COMMENT ON TABLE exa_billing.accounts IS
    'One row per spend owner: posted totals. The exact figures, posted and unposted, are in the view account_balances. All posted state of an owner is written only under the lock of this row.';
COMMENT ON COLUMN exa_billing.accounts.total_microdollars_acquired IS
    'Sum of the owner''s credit_transactions, in microdollars.';
COMMENT ON COLUMN exa_billing.accounts.microdollars_used IS
    'Posted usage charged to this owner, in microdollars; unposted_spend holds the rest.';
COMMENT ON COLUMN exa_billing.accounts.posted_before IS
    'No row of the owner that an earlier transaction has queued waits any more, so readers begin with this one. It holds in the queue that posted_where tells of; anywhere else, after a dump was restored, all rows are looked at.';
COMMENT ON COLUMN exa_billing.accounts.posted_where IS
    'A number for the server and the table unposted_spend in which posted_before holds.';
COMMENT ON COLUMN exa_billing.accounts.low_balance_since IS
    'When the balance was found below the minimum; null while it is not, or after the minimum was changed. Whoever hears of it has been told once.';

CREATE TABLE exa_billing.exa_monthly_usage (
    counter_id uuid NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    organization_id text COLLATE "C",
    month date NOT NULL,
    total_cost_microdollars bigint NOT NULL,
    total_charged_microdollars bigint NOT NULL,
    request_count bigint NOT NULL,
    free_allowance_microdollars bigint,
    CONSTRAINT exa_monthly_usage_pkey PRIMARY KEY (counter_id),
    CONSTRAINT exa_monthly_usage_context_key
        UNIQUE NULLS NOT DISTINCT (user_id, month, organization_id)
) WITH (fillfactor = 50);
COMMENT ON TABLE exa_billing.exa_monthly_usage IS
    'Posted counters per user, context (organization, or null for personal) and UTC month. The exact counters are in the view exa_monthly_usage_current and the function exa_monthly_usage().';

CREATE TABLE exa_billing.organization_member_usage (
    organization_id text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    usage_date date NOT NULL,
    microdollars_used bigint NOT NULL,
    CONSTRAINT organization_member_usage_pkey PRIMARY KEY (organization_id, user_id, usage_date)
) WITH (fillfactor = 50);
COMMENT ON TABLE exa_billing.organization_member_usage IS
    'Posted variable spend per acting user, organization and UTC day, from every source, in microdollars.';

CREATE TABLE exa_billing.spend_dimensions (
    dimension_id uuid NOT NULL,
    spend_category text COLLATE "C" NOT NULL,
    source text COLLATE "C" NOT NULL,
    product_key text COLLATE "C" NOT NULL,
    feature_key text COLLATE "C" NOT NULL,
    model_or_plan_key text COLLATE "C" NOT NULL,
    provider_key text COLLATE "C" NOT NULL,
    CONSTRAINT spend_dimensions_pkey PRIMARY KEY (dimension_id),
    CONSTRAINT spend_dimensions_key UNIQUE
        (spend_category, source, product_key, feature_key, model_or_plan_key, provider_key),
    CONSTRAINT spend_dimensions_category_check CHECK (spend_category IN ('variable', 'scheduled'))
);
COMMENT ON TABLE exa_billing.spend_dimensions IS
    'What spend is for: each distinct combination once, so that queue and rollups stay narrow. Ids are random uuids: a sequence would have to be carried along by every kind of copy.';

CREATE TABLE exa_billing.spend_hourly_totals (
    owner_kind text COLLATE "C" NOT NULL,
    owner_id text COLLATE "C" NOT NULL,
    hour_start timestamptz NOT NULL,
    spend_category text COLLATE "C" NOT NULL,
    total_microdollars bigint NOT NULL,
    spend_record_count bigint NOT NULL,
    CONSTRAINT spend_hourly_totals_pkey PRIMARY KEY (owner_kind, owner_id, hour_start, spend_category)
) WITH (fillfactor = 70);
COMMENT ON TABLE exa_billing.spend_hourly_totals IS
    'Posted spend per owner, UTC hour and category, in microdollars. The exact totals are in the view spend_hourly.';

CREATE TABLE exa_billing.spend_daily_totals (
    owner_kind text COLLATE "C" NOT NULL,
    owner_id text COLLATE "C" NOT NULL,
    day_start timestamptz NOT NULL,
    spend_category text COLLATE "C" NOT NULL,
    total_microdollars bigint NOT NULL,
    spend_record_count bigint NOT NULL,
    CONSTRAINT spend_daily_totals_pkey PRIMARY KEY (owner_kind, owner_id, day_start, spend_category)
) WITH (fillfactor = 50);
COMMENT ON TABLE exa_billing.spend_daily_totals IS
    'Posted spend per owner, UTC day and category, in microdollars: the sums of spend_hourly_totals, so that evaluating thirty days of many owners reads thirty rows of each instead of seven hundred.';

CREATE TABLE exa_billing.spend_hourly_drivers (
    owner_kind text COLLATE "C" NOT NULL,
    owner_id text COLLATE "C" NOT NULL,
    hour_start timestamptz NOT NULL,
    dimension_id uuid NOT NULL,
    actor_user_id text COLLATE "C" NOT NULL,
    total_microdollars bigint NOT NULL,
    spend_record_count bigint NOT NULL,
    CONSTRAINT spend_hourly_drivers_pkey
        PRIMARY KEY (owner_kind, owner_id, hour_start, dimension_id, actor_user_id)
) WITH (fillfactor = 70);
COMMENT ON TABLE exa_billing.spend_hourly_drivers IS
    'Posted spend per owner, UTC hour and driver (dimension and acting user; an empty actor is nobody known), in microdollars.';

-- Reconciling and backfilling look at everybody's hours of a day. A block range index costs posting
-- next to nothing, and rows arrive almost in the order of their hours.
CREATE INDEX spend_hourly_totals_hour_idx ON exa_billing.spend_hourly_totals
    USING brin (hour_start) WITH (pages_per_range = 32);
CREATE INDEX spend_hourly_drivers_hour_idx ON exa_billing.spend_hourly_drivers
    USING brin (hour_start) WITH (pages_per_range = 32);

-- Sources -----------------------------------------------------------------------------------

CREATE TABLE exa_billing.spend_sources (
    source_name text COLLATE "C" NOT NULL,
    is_own boolean NOT NULL,
    relation_schema text COLLATE "C" NOT NULL,
    relation_name text COLLATE "C" NOT NULL,
    relation_oid oid,
    partition_oids oid[],
    spend_category text COLLATE "C",
    source text COLLATE "C",
    column_map jsonb,
    on_delete text COLLATE "C",
    counts_from timestamptz,
    covered_from timestamptz NOT NULL,
    attached_at timestamptz NOT NULL,
    detached_at timestamptz,
    closed_before timestamptz,
    CONSTRAINT spend_sources_pkey PRIMARY KEY (source_name),
    CONSTRAINT spend_sources_category_check CHECK (spend_category IN ('variable', 'scheduled')),
    CONSTRAINT spend_sources_on_delete_check CHECK (on_delete IN ('reverse', 'keep')),
    CONSTRAINT spend_sources_own_check CHECK (is_own = (column_map IS NULL))
);
COMMENT ON TABLE exa_billing.spend_sources IS
    'Every journal of spend: the product''s own, and the application''s tables that are or were attached. Written by attach_spend_source() and detach_spend_source().';
COMMENT ON COLUMN exa_billing.spend_sources.relation_name IS
    'The table as it was last known by name; the oid goes first while it is right, the name after a restore.';
COMMENT ON COLUMN exa_billing.spend_sources.column_map IS
    'What each part of a charge is read from; every column by its name and its number, so that it may be renamed.';
COMMENT ON COLUMN exa_billing.spend_sources.counts_from IS
    'Rows dated earlier are in no figure; null: all rows count.';
COMMENT ON COLUMN exa_billing.spend_sources.covered_from IS
    'The UTC hour from which the hourly rollups hold this journal: an hour without rows is zero from there on, and unknown before.';
COMMENT ON COLUMN exa_billing.spend_sources.closed_before IS
    'When the table was detached, its rows dated earlier were replaced by rows of spend_log; attached again, they never count a second time.';

CREATE TABLE exa_billing.spend_degraded_intervals (
    interval_id uuid NOT NULL,
    owner_kind text COLLATE "C",
    owner_id text COLLATE "C",
    from_hour timestamptz NOT NULL,
    to_hour timestamptz NOT NULL,
    reason text NOT NULL,
    detected_at timestamptz NOT NULL,
    resolved_at timestamptz,
    CONSTRAINT spend_degraded_intervals_pkey PRIMARY KEY (interval_id),
    CONSTRAINT spend_degraded_intervals_owner_check CHECK (
        (owner_kind IS NULL) = (owner_id IS NULL) AND owner_kind IN ('user', 'organization')),
    CONSTRAINT spend_degraded_intervals_hours_check CHECK (
        from_hour < to_hour AND from_hour = date_trunc('hour', from_hour, 'UTC')
        AND to_hour = date_trunc('hour', to_hour, 'UTC'))
);
CREATE INDEX spend_degraded_intervals_open_idx
    ON exa_billing.spend_degraded_intervals (from_hour, to_hour) WHERE resolved_at IS NULL;
COMMENT ON TABLE exa_billing.spend_degraded_intervals IS
    'Hours whose rollups are not trusted, of one owner or (owner null) of all: while an interval is open, reads take its hours from the journals.';

-- Journals ----------------------------------------------------------------------------------

CREATE TABLE exa_billing.exa_usage_log (
    usage_id uuid NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    organization_id text COLLATE "C",
    path text COLLATE "C" NOT NULL,
    cost_microdollars bigint NOT NULL,
    charged_microdollars bigint NOT NULL,
    charged_to_balance boolean NOT NULL,
    feature_id text COLLATE "C",
    request_type text COLLATE "C",
    created_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    CONSTRAINT exa_usage_log_pkey PRIMARY KEY (usage_id, created_at),
    CONSTRAINT exa_usage_log_amounts_check CHECK (
        0 <= charged_microdollars AND charged_microdollars <= cost_microdollars
        AND cost_microdollars <= 9007199254740991
        AND charged_to_balance = (charged_microdollars > 0)),
    CONSTRAINT exa_usage_log_times_check CHECK (isfinite(created_at) AND isfinite(recorded_at))
) PARTITION BY RANGE (created_at);
CREATE INDEX exa_usage_log_user_idx ON exa_billing.exa_usage_log (user_id, created_at);
CREATE INDEX exa_usage_log_organization_idx ON exa_billing.exa_usage_log (organization_id, created_at)
    WHERE organization_id IS NOT NULL;
COMMENT ON TABLE exa_billing.exa_usage_log IS
    'Journal of every Exa request, partitioned by UTC month of created_at. Append-only: a correction is made with adjust_credit.';
COMMENT ON COLUMN exa_billing.exa_usage_log.charged_microdollars IS
    'The part charged to the credits of the organization, or of the user when organization_id is null; the rest of the cost was free.';
COMMENT ON COLUMN exa_billing.exa_usage_log.created_at IS 'When the request happened.';
COMMENT ON COLUMN exa_billing.exa_usage_log.recorded_at IS 'When the database learnt of it.';

CREATE TABLE exa_billing.spend_log (
    spend_id uuid NOT NULL,
    owner_kind text COLLATE "C" NOT NULL,
    owner_id text COLLATE "C" NOT NULL,
    actor_user_id text COLLATE "C",
    spend_category text COLLATE "C" NOT NULL,
    source text COLLATE "C" NOT NULL,
    product_key text COLLATE "C" NOT NULL,
    feature_key text COLLATE "C" NOT NULL,
    model_or_plan_key text COLLATE "C" NOT NULL,
    provider_key text COLLATE "C" NOT NULL,
    amount_microdollars bigint NOT NULL,
    spend_record_count bigint NOT NULL,
    created_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    CONSTRAINT spend_log_pkey PRIMARY KEY (spend_id, created_at),
    CONSTRAINT spend_log_owner_kind_check CHECK (owner_kind IN ('user', 'organization')),
    CONSTRAINT spend_log_category_check CHECK (spend_category IN ('variable', 'scheduled')),
    CONSTRAINT spend_log_amount_check CHECK (amount_microdollars > 0 AND spend_record_count > 0),
    CONSTRAINT spend_log_times_check CHECK (isfinite(created_at) AND isfinite(recorded_at))
) PARTITION BY RANGE (created_at);
CREATE INDEX spend_log_owner_idx ON exa_billing.spend_log (owner_kind, owner_id, created_at);
COMMENT ON TABLE exa_billing.spend_log IS
    'Journal of every other charge, partitioned by UTC month of created_at. Append-only. The source is kept as given; rollups count an unknown one as other.';
COMMENT ON COLUMN exa_billing.spend_log.spend_record_count IS
    'How many charges the row stands for: 1, or more in a row that closes a detached ledger.';

CREATE TABLE exa_billing.credit_transactions (
    id uuid NOT NULL,
    owner_kind text COLLATE "C" NOT NULL,
    owner_id text COLLATE "C" NOT NULL,
    amount_microdollars bigint NOT NULL,
    expiry_date timestamptz,
    original_baseline_microdollars_used bigint NOT NULL,
    expiration_baseline_microdollars_used bigint,
    credit_category text,
    description text,
    is_free boolean NOT NULL,
    original_transaction_id uuid,
    created_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    CONSTRAINT credit_transactions_pkey PRIMARY KEY (id),
    CONSTRAINT credit_transactions_one_closure_key UNIQUE (original_transaction_id),
    CONSTRAINT credit_transactions_owner_kind_check CHECK (owner_kind IN ('user', 'organization')),
    CONSTRAINT credit_transactions_times_check CHECK (
        isfinite(created_at) AND isfinite(recorded_at) AND (expiry_date IS NULL OR isfinite(expiry_date))),
    CONSTRAINT credit_transactions_expiring_check CHECK (
        (expiry_date IS NULL) = (expiration_baseline_microdollars_used IS NULL))
);
CREATE INDEX credit_transactions_owner_idx
    ON exa_billing.credit_transactions (owner_kind, owner_id, created_at);
CREATE INDEX credit_transactions_expiring_idx
    ON exa_billing.credit_transactions (owner_kind, owner_id, expiry_date)
    WHERE expiry_date IS NOT NULL;
COMMENT ON TABLE exa_billing.credit_transactions IS
    'Journal of grants, expirations and adjustments, in signed microdollars. Only the two baseline columns may ever change, and only through the functions; descriptions go with erase_user().';

CREATE TABLE exa_billing.unposted_spend (
    owner_kind text COLLATE "C" NOT NULL,
    owner_id text COLLATE "C" NOT NULL,
    entry_id uuid NOT NULL,
    journal text COLLATE "C" NOT NULL,
    actor_user_id text COLLATE "C",
    cost_microdollars bigint,
    amount_microdollars bigint NOT NULL,
    spend_record_count bigint NOT NULL,
    dimension_id uuid,
    dimension text[] COLLATE "C",
    blocked_reason text,
    created_at timestamptz NOT NULL,
    transaction_id xid8 NOT NULL,
    CONSTRAINT unposted_spend_pkey PRIMARY KEY (owner_kind, owner_id, transaction_id, entry_id),
    CONSTRAINT unposted_spend_dimension_check CHECK (
        (dimension_id IS NULL) <> (dimension IS NULL)
        AND (dimension IS NULL OR cardinality(dimension) = 6))
) WITH (
    -- Rows live for a fraction of a second; vacuum must keep up with every charge.
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_scale_factor = 0,
    autovacuum_vacuum_insert_threshold = 100000,
    autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX unposted_spend_new_dimension_idx ON exa_billing.unposted_spend (owner_kind, owner_id, transaction_id)
    WHERE dimension IS NOT NULL;
-- A user's own counters over all contexts: the primary key leads with the organization.
CREATE INDEX unposted_spend_actor_idx ON exa_billing.unposted_spend (actor_user_id)
    WHERE owner_kind = 'organization';
CREATE INDEX unposted_spend_blocked_idx ON exa_billing.unposted_spend (owner_kind, owner_id, transaction_id)
    WHERE blocked_reason IS NOT NULL;
COMMENT ON TABLE exa_billing.unposted_spend IS
    'The queue: one row per journal row that is not yet posted. Every exact figure adds these rows to the posted ones.';
COMMENT ON COLUMN exa_billing.unposted_spend.cost_microdollars IS
    'The whole cost of an Exa request, free part included; null in entries of other journals.';
COMMENT ON COLUMN exa_billing.unposted_spend.amount_microdollars IS
    'What is charged to the owner; 0 for a free request, negative when a captured row is taken back.';
COMMENT ON COLUMN exa_billing.unposted_spend.dimension IS
    'A combination that spend_dimensions does not know yet: category, source, product, feature, model or plan, provider. Posting adds it, so that a charge never waits for one.';
COMMENT ON COLUMN exa_billing.unposted_spend.transaction_id IS
    'The transaction that has queued the row. Rows that are posted stay in their places until no snapshot shows them any more; by this number, which accounts.posted_before is compared with, they are passed over.';
COMMENT ON COLUMN exa_billing.unposted_spend.blocked_reason IS
    'Why posting this row failed; it is counted everywhere all the same. See retry_blocked_spend().';

-- Policies, keys, members -------------------------------------------------------------------

CREATE TABLE exa_billing.free_allowances (
    id uuid NOT NULL,
    user_id text COLLATE "C",
    effective_month date NOT NULL,
    free_allowance_microdollars bigint,
    overage_rule text COLLATE "C",
    set_at timestamptz NOT NULL,
    CONSTRAINT free_allowances_pkey PRIMARY KEY (id),
    CONSTRAINT free_allowances_entry_key UNIQUE NULLS NOT DISTINCT (user_id, effective_month),
    CONSTRAINT free_allowances_amount_check CHECK (free_allowance_microdollars >= 0),
    CONSTRAINT free_allowances_rule_check CHECK (overage_rule IN ('whole', 'split')),
    CONSTRAINT free_allowances_month_check CHECK (extract(day FROM effective_month) = 1)
);
COMMENT ON TABLE exa_billing.free_allowances IS
    'The monthly free allowance in force from a month on, for one user or (user_id null) for everyone. A null amount ends the user''s own entry. Written by set_free_allowance().';

CREATE TABLE exa_billing.exa_monthly_allowance (
    user_id text COLLATE "C" NOT NULL,
    month date NOT NULL,
    free_allowance_microdollars bigint NOT NULL,
    overage_rule text COLLATE "C" NOT NULL,
    used_microdollars bigint NOT NULL,
    CONSTRAINT exa_monthly_allowance_pkey PRIMARY KEY (user_id, month),
    CONSTRAINT exa_monthly_allowance_rule_check CHECK (overage_rule IN ('whole', 'split')),
    CONSTRAINT exa_monthly_allowance_used_check CHECK (
        used_microdollars >= 0 AND free_allowance_microdollars >= 0)
) WITH (fillfactor = 70);
COMMENT ON TABLE exa_billing.exa_monthly_allowance IS
    'The allowance a user''s month was locked in with by its first request, and what was counted against it; it is no longer written once it is used up.';

CREATE TABLE exa_billing.idempotency_keys (
    key_space text COLLATE "C" NOT NULL,
    idempotency_key text COLLATE "C" NOT NULL,
    entry_id uuid NOT NULL,
    entry_created_at timestamptz NOT NULL,
    created_at_given boolean NOT NULL,
    payload_hash bytea NOT NULL,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (key_space, idempotency_key)
);
COMMENT ON TABLE exa_billing.idempotency_keys IS
    'Every idempotency key ever used, in one unpartitioned table so that it is unique for ever: the journal row it recorded and a hash of what was asked.';

CREATE TABLE exa_billing.organization_members (
    organization_id text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    role text COLLATE "C" NOT NULL,
    daily_limit_microdollars bigint,
    CONSTRAINT organization_members_pkey PRIMARY KEY (organization_id, user_id),
    CONSTRAINT organization_members_role_check CHECK (role IN ('owner', 'billing_manager', 'member')),
    CONSTRAINT organization_members_limit_check CHECK (daily_limit_microdollars >= 0)
);
CREATE INDEX organization_members_user_idx ON exa_billing.organization_members (user_id);
COMMENT ON TABLE exa_billing.organization_members IS
    'Who may spend for an organization, in which role, and how much a UTC day; a null limit is none.';

-- Rights --------------------------------------------------------------------------------------

CREATE TABLE exa_billing.access_grants (
    role_name text COLLATE "C" NOT NULL,
    granted_as text COLLATE "C" NOT NULL,
    granted_at timestamptz NOT NULL,
    CONSTRAINT access_grants_pkey PRIMARY KEY (role_name, granted_as)
);
COMMENT ON TABLE exa_billing.access_grants IS
    'Which roles were given which rights as a whole, so that setup() can give them what later versions bring.';

-- What long procedures have done so far --------------------------------------------------------

CREATE TABLE exa_billing.procedure_progress (
    procedure_name text COLLATE "C" NOT NULL,
    arguments text COLLATE "C" NOT NULL,
    after_owner_kind text COLLATE "C" NOT NULL,
    after_owner_id text COLLATE "C" NOT NULL,
    before_hour timestamptz,
    total bigint NOT NULL,
    done bigint NOT NULL,
    changed bigint NOT NULL,
    failed bigint NOT NULL,
    started_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    finished_at timestamptz,
    CONSTRAINT procedure_progress_pkey PRIMARY KEY (procedure_name, arguments)
);
COMMENT ON TABLE exa_billing.procedure_progress IS
    'How far each long procedure has come, by its arguments: a run that was stopped goes on after the last owner, or before the last hour, it finished. Shown by the view progress.';
