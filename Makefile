# Short names for the scripts; what happens is told in scripts/*.sh.
.DEFAULT_GOAL := help
.PHONY: help all demo demo-stop test test-all test-package proof check install package deb bench bench-quick clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 20

demo: ## set up everything, run demo/story.sql and leave its private server up
	@scripts/demo.sh

demo-stop: ## stop the demonstration's server and throw its data away
	@scripts/demo.sh stop

test: ## all tests on PostgreSQL 15, in a private server
	@scripts/test.sh 15

test-all: ## the same, the packages, and each further major release that can be had
	@scripts/test.sh 15
	@scripts/test-package.sh
	@scripts/test.sh others

test-package: ## build the packages, install each into a clean PostgreSQL and try it
	@scripts/test-package.sh

proof: ## the long form of the proof suite (docs/GUARANTEES.md); its last part ends when interrupted
	@scripts/proof.sh

check: ## formatting, lints and the tests that need no server
	@scripts/check.sh

all: ## what `make install` installs, built only: installers of PGXN ask for it
	@scripts/install.sh build

install: ## an optimised build into the PostgreSQL of pg_config (or PG_CONFIG=...)
	@scripts/install.sh

package: ## the same as an archive, in target/package
	@scripts/install.sh package

deb: ## the same as a Debian package for Debian's PostgreSQL
	@scripts/install.sh deb

bench: ## measure everything into bench/RESULTS.md: an hour and a half, on a quiet machine
	@bench/run.sh

bench-quick: ## the main measurements in three minutes, to the screen
	@bench/run.sh --quick

clean: ## stop the private servers and remove them and everything built
	@scripts/clean.sh
