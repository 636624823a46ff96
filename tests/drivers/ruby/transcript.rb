# The transcript of a program: each step under its title, and what it saw. It is the same on a direct connection and
# through pgweir, so it has nothing of one moment in it (no process ids, no times).

$stdout.sync = true
SCHEMA = ENV.fetch("SCHEMA")

# The first line: the program and its version, as installed.
def start(name, version)
  puts "#{name} #{version}"
end

def step(title)
  puts "== #{title}"
  yield
end

def show(*values)
  puts values.map(&:inspect).join(" ")
end

# Shows the error that has to come, by what Postgres says of it.
def fails
  yield
rescue StandardError => error
  said = error
  said = said.cause until said.nil? || said.is_a?(PG::Error)
  raise if said.nil?

  result = said.result
  show "error", result.error_field(PG::PG_DIAG_SQLSTATE), result.error_field(PG::PG_DIAG_MESSAGE_PRIMARY)
else
  raise "an error was expected"
end
