# Stands in for the official PostgreSQL image where no registry is in reach: the same variables, user and folder.
ARG BASE
FROM ${BASE}
RUN apt-get -qq update \
 && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends postgresql >/dev/null \
 && rm -rf /var/lib/apt/lists/* \
 && for program in initdb pg_ctl postgres; do ln -s /usr/lib/postgresql/*/bin/$program /usr/local/bin/; done \
 && install -d -o postgres -g postgres -m 3777 /var/run/postgresql \
 && install -d -o postgres -g postgres -m 1777 /var/lib/postgresql/data
COPY postgres-entrypoint.sh /
ENV PGDATA=/var/lib/postgresql/data
USER postgres
VOLUME /var/lib/postgresql/data
ENTRYPOINT ["sh", "/postgres-entrypoint.sh"]
