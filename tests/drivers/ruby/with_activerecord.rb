# ActiveRecord, as Rails uses it: migrations under an advisory lock, models, a pool of threads, prepared statements.

require "active_record"
require_relative "transcript"

start "ActiveRecord", ActiveRecord::VERSION::STRING
CONFIG = { adapter: "postgresql", url: ENV["DATABASE_URL"].split("?").first, pool: 4, checkout_timeout: 120, min_messages: "warning",
           schema_search_path: SCHEMA }
ActiveRecord::Base.establish_connection(CONFIG)
ActiveRecord::Migration.verbose = false

class MakeTables < ActiveRecord::Migration[6.1]
  def change
    create_table(:authors) do |t|
      t.string :name, null: false, index: { unique: true }
      t.string :tags, array: true, default: []
      t.jsonb :profile
      t.integer :lock_version, default: 0
    end
    create_table(:books) do |t|
      t.references :author, foreign_key: true
      t.string :title
      t.decimal :price, precision: 12, scale: 2
      t.binary :cover
      t.int4range :span
      t.timestamps null: false, default: "2024-02-29 12:00:00"
    end
  end
end

class AddIndex < ActiveRecord::Migration[6.1]
  disable_ddl_transaction!

  def change
    add_index :books, :title, algorithm: :concurrently
  end
end

class Author < ActiveRecord::Base
  has_many :books, -> { order(:id) }
  validates :name, uniqueness: true
end

class Book < ActiveRecord::Base
  belongs_to :author, optional: true
  after_commit { (@@committed ||= []) << title }

  def self.committed
    @@committed
  end
end

def connection
  ActiveRecord::Base.connection
end

step "migrations under an advisory lock, one outside of a transaction" do
  context = ActiveRecord::MigrationContext.new([], ActiveRecord::SchemaMigration)
  migrations = [MakeTables.new("MakeTables", 1), AddIndex.new("AddIndex", 2)]
  begin
    ActiveRecord::Migrator.new(:up, migrations, ActiveRecord::SchemaMigration).migrate
  rescue ActiveRecord::ConcurrentMigrationError
    # The lock is one for the database, and others migrate beside us.
    sleep 0.1
    retry
  end
  show connection.tables.sort, context.get_all_versions
end

step "rows, arrays, json, ranges and bytes" do
  ada = Author.create!(name: "Ada", tags: ["a", "b,c", '"q"'], profile: { deep: [1, nil] })
  ada.books.create!(title: "One", price: "12.5", cover: "\0\xff".b, span: 1...5)
  ada = Author.includes(:books).find_by!("tags @> ARRAY[?]::varchar[]", ["b,c"])
  book = ada.books.first
  show ada.id, ada.tags, ada.profile, book.price.to_s, book.cover.bytes, book.span, book.created_at.utc.to_s
end

step "inserts with ids, upserts, batches" do
  show Book.insert_all((1..500).map { |n| { title: "Volume #{n}", price: n } }, returning: [:id]).rows.size
  show Author.upsert_all([{ name: "Ada", tags: ["new"] }, { name: "Bob", tags: [] }], unique_by: :name, returning: %w[id name]).to_a
  show Book.where("price > 0").find_in_batches(batch_size: 100).map(&:size), Book.sum(:price).to_s
end

step "prepared statements" do
  show (1..30).map { |n| Book.find_by(title: "Volume #{n}").price.to_i }.sum
  show (1..30).map { |n| Book.where(title: "Volume #{n}").where(price: n).limit(n).count }.sum
  connection.clear_cache!
  show Book.find_by(title: "Volume 7").price.to_i
end

step "transactions, savepoints, and callbacks of the commit" do
  Book.committed.clear
  Book.transaction do
    Book.create!(title: "outer")
    Book.transaction(requires_new: true) do
      Book.create!(title: "inner")
      raise ActiveRecord::Rollback
    end
    fails { Book.transaction(requires_new: true) { connection.execute("SELECT 1/0") } }
    Book.create!(title: "after")
  end
  show Book.committed
  fails { Book.transaction { Author.insert!({ name: "Ada" }) } }
  Book.transaction(isolation: :serializable) { show connection.select_value("SHOW transaction_isolation") }
end

step "locks, optimistic and pessimistic" do
  first, second = Author.find_by!(name: "Bob"), Author.find_by!(name: "Bob")
  first.update!(profile: { count: 0 })
  begin
    second.update!(profile: { count: 9 })
  rescue ActiveRecord::StaleObjectError => error
    show error.class.name
  end
  threads = (1..12).map do |n|
    Thread.new do
      ActiveRecord::Base.connection_pool.with_connection do
        Author.find_by!(name: "Bob").with_lock { |_| bob = Author.find_by!(name: "Bob"); bob.update!(profile: { count: bob.profile["count"] + n }) }
      end
    end
  end
  threads.each(&:join)
  show Author.find_by!(name: "Bob").profile
end

step "an advisory lock held between statements" do
  show connection.get_advisory_lock(SCHEMA.hash % 1_000_000)
  show Book.where(title: "outer").count
  show connection.release_advisory_lock(SCHEMA.hash % 1_000_000)
end

step "a table grows under prepared statements" do
  old = Author.find_by!(name: "Ada")
  Author.find_by!(name: "Bob")
  show old.attributes.size
  connection.execute("ALTER TABLE authors ADD born int DEFAULT 1815")
  show Author.find_by!(name: "Ada").name
  Author.transaction do
    show Author.find_by!(name: "Bob").name
  end
  Author.reset_column_information
  show Author.find_by!(name: "Ada").born
end

step "settings, timeouts and variables of a connection" do
  own = Class.new(ActiveRecord::Base) { def self.name = "Own" }
  own.establish_connection(CONFIG.merge(pool: 1, variables: { statement_timeout: 3000, timezone: "Asia/Tokyo" }))
  show own.connection.select_value("SELECT '2024-01-01 00:00:00+00'::timestamptz::text")
  fails { own.connection.execute("SELECT pg_sleep(60)") }
  own.connection.execute("SET statement_timeout = '9s'")
  show own.connection.select_value("SHOW statement_timeout"), connection.select_value("SHOW statement_timeout")
  own.remove_connection
end

step "the connection below: COPY, a temporary table, LISTEN" do
  raw = connection.raw_connection
  raw.exec("CREATE TEMPORARY TABLE copied (a int, b text)")
  raw.copy_data("COPY copied FROM STDIN") { 1000.times { |n| raw.put_copy_data("#{n}\trow #{n}\n") } }
  show connection.select_value("SELECT sum(a) FROM copied")
  raw.exec("DROP TABLE copied")
  raw.exec(%(LISTEN "#{SCHEMA} news"))
  ActiveRecord::Base.connection_pool.checkout.then do |other|
    other.execute("NOTIFY \"#{SCHEMA} news\", 'hello'")
    ActiveRecord::Base.connection_pool.checkin(other)
  end
  raw.wait_for_notify(60) { |channel, _, payload| show channel, payload }
  raw.exec("UNLISTEN *")
end

step "errors, and the pool goes on" do
  fails { Author.insert!({ name: "Ada" }) }
  fails { connection.execute("SELECT * FROM missing") }
  fails { Book.where("title = ?::int::text", "no number").to_a }
  show Author.count
end

step "disconnect, reset, and connect again" do
  connection.reset!
  show Author.count
  connection.reconnect!
  show connection.current_schema, Author.find_by!(name: "Ada").name
  ActiveRecord::Base.connection_handler.clear_all_connections!
  show connection.active?
end
