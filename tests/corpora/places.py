"""Places that tell by themselves that a password stands in them: DSNs, files, commands, prose.

Each row is a text with `%P` for a password, `%U` for one percent-encoded, and the fields of `fill`.
"""

__all__ = ["COMMANDS", "DSNS", "FILES"]

Row = tuple[str, str, str]

DSNS: tuple[Row, ...] = (
    ("dsn_postgres", "PostgreSQL manual, connection URIs", "postgresql://app:%U@db1:5432/prod"),
    ("dsn_mysql", "MySQL connector docs, URI syntax", "mysql://root:%U@127.0.0.1/shop"),
    (
        "dsn_mongodb",
        "MongoDB docs, connection strings",
        "mongodb+srv://app:%U@c0.ab1.mongodb.net/x",
    ),
    ("dsn_redis", "Redis docs, redis-cli URI", "redis://:%U@cache:6379/0"),
    ("dsn_amqp", "RabbitMQ URI specification", "amqps://app:%U@mq.example.com:5671/vh"),
    ("dsn_jdbc", "JDBC docs, URL properties", "jdbc:postgresql://db/x?user=app&password=%U"),
    ("dsn_odbc", "Microsoft ODBC docs", "Driver={ODBC};Server=db1;UID=app;PWD=%P;Encrypt=yes"),
    ("dsn_sqlserver", "SqlClient docs", "Server=db1;Database=x;User Id=sa;Password=%P;"),
    ("dsn_sqlalchemy", "SQLAlchemy docs, engine URLs", "mysql+pymysql://app:%U@db1/x?charset=utf8"),
    ("dsn_libpq", "PostgreSQL manual, keyword/value", "host=db1 dbname=x user=app password=%P"),
    ("dsn_ftp", "RFC 1738 §3.2", "ftp://jo:%U@ftp.example.com/pub"),
    ("dsn_smtp", "Nodemailer docs, SMTP URL", "smtps://jo%40example.com:%U@smtp.example.com:465"),
    ("dsn_ldap", "OpenLDAP, ldapsearch(1)", "ldapsearch -D cn=admin,dc=x -w %P -b dc=x"),
    ("url_git", "gitcredentials(7)", "git clone https://jo:%U@git.example.com/a/b.git"),
    ("url_git_token", "GitHub docs, cloning", "https://{40:h}@git.example.com/a/b.git"),
    ("url_proxy", "curl(1), environment", "https_proxy=http://jo:%U@proxy.example.com:3128"),
    (
        "url_pip_index",
        "pip docs, authentication",
        "--index-url https://ci:%U@pkg.example.com/simple",
    ),
)

FILES: tuple[Row, ...] = (
    ("file_netrc", "netrc(5)", "machine api.example.com login jo password %P"),
    ("file_netrc_lines", "netrc(5)", "machine api.example.com\n  login jo\n  password %P\n"),
    ("file_pgpass", "PostgreSQL manual, The password file", "db1.example.com:5432:prod:app:%P"),
    ("file_my_cnf", "MySQL manual, option files", "[client]\nuser=root\npassword=%P\n"),
    ("file_npmrc", "npm docs, npmrc", "//npm.example.com/:_authToken={36:a}"),
    ("file_npmrc_basic", "npm docs, npmrc", "//npm.example.com/:_auth={40:a}"),
    ("file_pypirc", "Python packaging guide, .pypirc", "[server]\nusername = ci\npassword = %P\n"),
    ("file_wpa", "wpa_supplicant.conf(5)", 'network={\n  ssid="home"\n  psk="%P"\n}'),
    ("file_wp_config", "WordPress docs, wp-config.php", "define( 'DB_PASSWORD', '%P' );"),
    ("file_redis_conf", "redis.conf", "bind 127.0.0.1\nrequirepass %P\n"),
    (
        "file_maven",
        "Maven docs, settings.xml",
        "<server><id>x</id><password>%P</password></server>",
    ),
    ("file_web_config", ".NET docs", '<add key="Password" value="%P" />'),
    ("file_tfvars", "Terraform docs, tfvars", 'region = "eu"\ndb_password = "%P"\n'),
    ("file_properties", "Java Properties", "db.url=jdbc:x\ndb.password=%P\n"),
    ("file_s3cfg", "s3cmd docs", "[default]\naccess_key = x\nsecret_key = {40:b}\n"),
    ("file_aws", "AWS CLI guide", "[default]\naws_secret_access_key = {40:b}\nregion = eu-west-1"),
    ("file_boto", "gsutil docs", "[Credentials]\ngs_oauth2_refresh_token = 1//0{98:u}\n"),
    ("file_cargo", "Cargo book, credentials.toml", '[registries.x]\ntoken = "{35:a}"\n'),
    ("file_gem", "RubyGems guides", "---\n:api_key: {48:h}\n"),
    (
        "file_hub",
        "GitHub CLI docs, hosts.yml",
        "git.example.com:\n  user: jo\n  oauth_token: {40:h}\n",
    ),
    ("file_dockerfile", "Dockerfile reference", "FROM debian\nENV API_TOKEN={40:a}\nRUN make\n"),
    (
        "file_compose",
        "Compose specification",
        "environment:\n  - POSTGRES_PASSWORD=%P\n  - TZ=UTC\n",
    ),
    ("file_grafana_ini", "Grafana docs", "[security]\nadmin_user = admin\nadmin_password = %P\n"),
    ("file_smb", "mount.cifs(8)", "username=jo\npassword=%P\ndomain=WORK\n"),
    ("file_pppd", "pppd(8)", '# client server secret\n"jo" * "%P" *\n'),
    ("file_ipsec", "ipsec.secrets(5)", ': PSK "%P"\n'),
    ("file_msmtp", "msmtp(1)", "account x\nhost smtp.example.com\nuser jo\npassword %P\n"),
)

COMMANDS: tuple[Row, ...] = (
    ("cli_password", "conventional long option", "tool --user jo --password %P --host db1"),
    ("cli_password_equals", "conventional long option", "tool --password=%P"),
    ("cli_curl_user", "curl(1) --user", "curl -u jo:%P https://api.example.com/v1"),
    ("cli_wget", "wget(1)", "wget --http-password=%P --http-user=jo https://x.example"),
    ("cli_mysql", "mysql(1)", "mysql -h db1 -u root -p%P shop"),
    ("cli_sshpass", "sshpass(1)", "sshpass -p %P ssh jo@host1"),
    ("cli_pgpassword", "psql(1)", "PGPASSWORD=%P psql -h db1 -U app"),
    ("cli_docker_login", "docker login docs", "docker login -u jo -p %P registry.example.com"),
    ("cli_openssl_pass", "openssl-passphrase-options(1)", "openssl rsa -in k.pem -passin pass:%P"),
    ("cli_gpg_passphrase", "gpg(1)", "gpg --batch --passphrase '%P' -d file.gpg"),
    ("cli_keytool", "keytool(1)", "keytool -list -storepass %P -keystore k.jks"),
    ("cli_helm_set", "helm docs", "helm install x ./c --set auth.password=%P"),
    (
        "cli_kubectl_literal",
        "kubectl docs",
        "kubectl create secret generic x --from-literal=password=%P",
    ),
    ("cli_aws_configure", "AWS CLI", "aws configure set aws_secret_access_key {40:b}"),
    ("cli_redis", "redis-cli docs", "redis-cli -h cache -a %P ping"),
    ("cli_chpasswd", "chpasswd(8)", "echo 'jo:%P' | chpasswd"),
    ("cli_echo_secret", "sudo(8)", "echo '%P' | sudo -S apt-get update"),
    ("cli_net_user", "Windows net use", "net use X: \\\\srv\\share /user:jo %P"),
    ("cli_vault_kv", "Vault docs", "vault kv put secret/db password=%P"),
    ("sql_create_user", "PostgreSQL manual", "CREATE USER app WITH PASSWORD '%P';"),
    ("sql_identified", "MySQL manual", "ALTER USER 'app'@'%' IDENTIFIED BY '%P';"),
    ("text_password_is", "plain prose", "The password is %P, change it soon."),
    ("text_login", "plain prose", "Username: jo\nPassword: %P\n"),
    ("expect_script", "expect(1)", 'expect "password:"\nsend "%P\\r"\n'),
)
