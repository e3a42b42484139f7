-- What runs by itself: where it may, what it has done, and the proof of the books that it keeps up.
--
-- Locks: only tables made here. Texts and columns as in the first migration.

CREATE TABLE exa_billing.worker_registration (
    registration_id uuid NOT NULL,
    system_identifier bigint NOT NULL,
    database_oid oid NOT NULL,
    table_oid oid NOT NULL,
    instance_name text COLLATE "C" NOT NULL,
    started_at timestamptz NOT NULL,
    CONSTRAINT worker_registration_pkey PRIMARY KEY (registration_id)
);
COMMENT ON TABLE exa_billing.worker_registration IS
    'Where background work was started with start_worker(): the server, the database and the instance it was meant for. A copy of the database is none of these, and stays quiet until it is told otherwise. At most one row.';
COMMENT ON COLUMN exa_billing.worker_registration.table_oid IS
    'This very table. A dump that is restored, even in the database it is from, makes another one; so nothing goes on between its rows.';

CREATE TABLE exa_billing.job_runs (
    job_name text COLLATE "C" NOT NULL,
    last_started_at timestamptz,
    last_ended_at timestamptz,
    last_error text,
    last_error_at timestamptz,
    failures_in_a_row bigint NOT NULL,
    run_count bigint NOT NULL,
    row_count bigint NOT NULL,
    CONSTRAINT job_runs_pkey PRIMARY KEY (job_name)
);
COMMENT ON TABLE exa_billing.job_runs IS
    'What each job of the background worker or of run_maintenance() has done; written at most once a minute and when something changes between good and bad. Shown by the view worker_jobs.';

CREATE TABLE exa_billing.books_proof (
    proof_id uuid NOT NULL,
    after_owner_kind text COLLATE "C" NOT NULL,
    after_owner_id text COLLATE "C" NOT NULL,
    owner_count bigint NOT NULL,
    violation_count bigint NOT NULL,
    first_violation text,
    started_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    finished_at timestamptz,
    CONSTRAINT books_proof_pkey PRIMARY KEY (proof_id)
);
COMMENT ON TABLE exa_billing.books_proof IS
    'The proof of the books that goes on all the time, some owners at a time: the one under way and the last one that was finished.';
