BEGIN TRANSACTION;
CREATE TABLE activity (
	agentos TEXT NOT NULL,
	what TEXT NOT NULL,
	digest BIGINT NOT NULL,
	seen BIGINT NOT NULL,
	PRIMARY KEY (agentos, what, digest)
);
INSERT INTO "activity" VALUES('os','session',-1852803795767038242,1795000009000000);
INSERT INTO "activity" VALUES('os','user',448206074779521544,1795000009000000);
CREATE TABLE admissions (
	label TEXT NOT NULL,
	value TEXT NOT NULL,
	PRIMARY KEY (label, value)
);
INSERT INTO "admissions" VALUES('root','Agent');
INSERT INTO "admissions" VALUES('agent','Agent');
INSERT INTO "admissions" VALUES('provider','openai');
INSERT INTO "admissions" VALUES('model','gpt-5.4');
INSERT INTO "admissions" VALUES('provider','anthropic');
INSERT INTO "admissions" VALUES('model','claude-sonnet-4-5');
CREATE TABLE budgets (
	name TEXT NOT NULL,
	definition TEXT NOT NULL,
	since BIGINT NOT NULL,
	PRIMARY KEY (name)
);
INSERT INTO "budgets" VALUES('all','definition',123);
CREATE TABLE cursors (
	agentos TEXT NOT NULL,
	db TEXT NOT NULL,
	data TEXT NOT NULL,
	PRIMARY KEY (agentos, db)
);
CREATE TABLE meta (
	"key" TEXT NOT NULL,
	value TEXT NOT NULL,
	PRIMARY KEY ("key")
);
INSERT INTO "meta" VALUES('format','agentos-exporter state');
INSERT INTO "meta" VALUES('user_key','6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b');
CREATE TABLE series (
	metric TEXT NOT NULL,
	labels TEXT NOT NULL,
	value TEXT NOT NULL,
	shown BOOLEAN NOT NULL,
	PRIMARY KEY (metric, labels)
);
INSERT INTO "series" VALUES('agentos_spans_total','["os", "Agent", "Agent", "agent"]','3',0);
INSERT INTO "series" VALUES('agentos_runs_total','["os", "agent", "Agent"]','3',1);
INSERT INTO "series" VALUES('agentos_spans_total','["os", "Agent", "Agent", "llm"]','4',0);
INSERT INTO "series" VALUES('agentos_llm_calls_total','["os", "Agent", "Agent", "openai", "gpt-5.4"]','3',0);
INSERT INTO "series" VALUES('agentos_run_duration_seconds','["os", "agent", "Agent"]','[[0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0], 27000000]',0);
INSERT INTO "series" VALUES('agentos_llm_call_duration_seconds','["os", "openai", "gpt-5.4"]','[[0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 3000000]',0);
INSERT INTO "series" VALUES('agentos_llm_call_input_tokens','["os", "openai", "gpt-5.4"]','[[0, 0, 0, 0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], 2300]',0);
INSERT INTO "series" VALUES('agentos_llm_call_output_tokens','["os", "openai", "gpt-5.4"]','[[0, 0, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0], 530]',0);
INSERT INTO "series" VALUES('agentos_exporter_span_ingest_delay_seconds','["os"]','[[7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0]',0);
INSERT INTO "series" VALUES('agentos_traces_total','["os", "agent"]','1',0);
INSERT INTO "series" VALUES('agentos_run_llm_calls','["os", "agent", "Agent"]','[[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 1]',0);
INSERT INTO "series" VALUES('agentos_llm_calls_total','["os", "Agent", "Agent", "anthropic", "claude-sonnet-4-5"]','1',0);
INSERT INTO "series" VALUES('agentos_llm_call_duration_seconds','["os", "anthropic", "claude-sonnet-4-5"]','[[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 1000000]',0);
INSERT INTO "series" VALUES('agentos_llm_call_input_tokens','["os", "anthropic", "claude-sonnet-4-5"]','[[0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 10]',0);
INSERT INTO "series" VALUES('agentos_llm_call_output_tokens','["os", "anthropic", "claude-sonnet-4-5"]','[[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 1]',0);
CREATE TABLE sessions (
	agentos TEXT NOT NULL,
	digest BIGINT NOT NULL,
	first BIGINT NOT NULL,
	last BIGINT NOT NULL,
	runs INTEGER NOT NULL,
	cost TEXT NOT NULL,
	PRIMARY KEY (agentos, digest)
);
INSERT INTO "sessions" VALUES('os',-1852803795767038242,1795000000000000,1795000009000000,3,'0');
CREATE TABLE spending (
	budget TEXT NOT NULL,
	start BIGINT NOT NULL,
	spent TEXT NOT NULL,
	PRIMARY KEY (budget, start)
);
CREATE TABLE traces (
	agentos TEXT NOT NULL,
	id TEXT NOT NULL,
	db TEXT NOT NULL,
	state INTEGER NOT NULL,
	total_spans INTEGER NOT NULL,
	nodes INTEGER NOT NULL,
	created BIGINT NOT NULL,
	"end" BIGINT NOT NULL,
	changed BIGINT NOT NULL,
	next_ask BIGINT NOT NULL,
	asks INTEGER NOT NULL,
	misses INTEGER NOT NULL,
	hidden INTEGER NOT NULL,
	root_kind TEXT NOT NULL,
	reported BOOLEAN NOT NULL,
	runs TEXT NOT NULL,
	spans BLOB NOT NULL,
	PRIMARY KEY (agentos, id, db)
);
INSERT INTO "traces" VALUES('os','t9','db',2,2,2,1795000000000000,1795000009000000,1795000000000000,1795000060000000,0,0,0,'agent',1,'[[101, "agent", "Agent", 1, 0, 0, 1, true]]',X'65000000000000006600000000000000');
INSERT INTO "traces" VALUES('os','t1','db',1,3,3,1795000000000000,1795000009000000,1795000000000000,1795000060000000,0,0,0,'agent',0,'[[101, "agent", "Agent", 2, 0, 0, 2, false]]',X'650000000000000066000000000000006700000000000000');
INSERT INTO "traces" VALUES('os','t2','db',1,2,2,1795000000000000,1795000009000000,1795000000000000,1795000060000000,0,0,0,'agent',0,'[[101, "agent", "Agent", 1, 0, 0, 1, false]]',X'65000000000000006600000000000000');
CREATE TABLE waiting (
	agentos TEXT NOT NULL,
	trace TEXT NOT NULL,
	span TEXT NOT NULL,
	session BIGINT,
	since BIGINT NOT NULL,
	data TEXT NOT NULL,
	PRIMARY KEY (agentos, trace, span)
);
INSERT INTO "waiting" VALUES('os','t9','102',-1852803795767038242,1795000000000000,'[102, "t9", "db", "run9", "s", "", 101, -1852803795767038242, "u", "Agent", "Agent", "openai", "gpt-5.4", "OpenAIChat", 2000, 500, 1795000000000000, 1795000001000000, 1795000000000000, false]');
INSERT INTO "waiting" VALUES('os','t1','102',-1852803795767038242,1795000000000000,'[102, "t1", "db", "run1", "s", "", 101, -1852803795767038242, "u", "Agent", "Agent", "openai", "gpt-5.4", "OpenAIChat", 100, 10, 1795000000000000, 1795000001000000, 1795000000000000, false]');
INSERT INTO "waiting" VALUES('os','t1','103',-1852803795767038242,1795000000000000,'[103, "t1", "db", "run1", "s", "", 101, -1852803795767038242, "u", "Agent", "Agent", "openai", "gpt-5.4", "OpenAIChat", 200, 20, 1795000001000000, 1795000002000000, 1795000000000000, false]');
INSERT INTO "waiting" VALUES('os','t2','102',-1852803795767038242,1795000000000000,'[102, "t2", "db", "run2", "s", "", 101, -1852803795767038242, "u", "Agent", "Agent", "anthropic", "claude-sonnet-4-5", "Claude", 10, 1, 1795000000000000, 1795000001000000, 1795000000000000, false]');
CREATE INDEX traces_waiting ON traces (agentos, db, state, next_ask);
CREATE INDEX traces_ended ON traces (agentos, db, state, "end");
CREATE INDEX traces_created ON traces (agentos, db, created);
CREATE INDEX activity_seen ON activity (agentos, what, seen);
CREATE INDEX sessions_last ON sessions (agentos, last);
CREATE INDEX waiting_since ON waiting (agentos, since);
COMMIT;
PRAGMA application_id = 1095192408;
PRAGMA user_version = 3;
