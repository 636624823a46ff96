"""Django's ORM with psycopg: migrations, atomic blocks, server-side cursors, persistent connections."""

import os

import django
from django.conf import settings

from transcript import SCHEMA, begin, crowd, fails, show, step

DATABASE = {
    "ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PGDATABASE"], "HOST": os.environ["PGHOST"], "PORT": os.environ["PGPORT"],
    "USER": os.environ["PGUSER"], "PASSWORD": os.environ["PGPASSWORD"], "CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True,
}
settings.configure(
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.postgres"],
    DATABASES={
        "default": DATABASE | {"OPTIONS": {"options": f"-c search_path={SCHEMA}", "server_side_binding": True}},
        "limited": DATABASE | {"TIME_ZONE": "Asia/Tokyo", "OPTIONS": {
            "options": f"-c search_path={SCHEMA} -c statement_timeout=3s", "application_name": "limited", "isolation_level": 4}},
    },
    USE_TZ=True, DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()

from django.contrib.auth.models import Group, User  # noqa: E402
from django.contrib.postgres.fields import ArrayField, IntegerRangeField  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import Error, connection, connections, models, transaction  # noqa: E402
from django.db.models import Count, F, Sum  # noqa: E402

begin("Django", "django")


class Item(models.Model):
    name = models.CharField(max_length=40, unique=True)
    tags = ArrayField(models.CharField(max_length=10), default=list)
    extra = models.JSONField(null=True)
    price = models.DecimalField(max_digits=12, decimal_places=2, default=0)
    span = IntegerRangeField(null=True)
    raw = models.BinaryField(null=True)
    owner = models.ForeignKey(User, null=True, on_delete=models.CASCADE)

    class Meta:
        app_label = "contenttypes"


@step("migrations of django.contrib.auth, and a table by the schema editor")
def _():
    call_command("migrate", verbosity=0)
    with connection.schema_editor() as editor:
        editor.create_model(Item)
    show(sorted(connection.introspection.table_names())[:4], connection.introspection.get_sequences(connection.cursor(), "auth_user")[0]["name"])


@step("rows, arrays, json, ranges and bytes")
def _():
    ada = User.objects.create_user("ada", "ada@example.org", "secret")
    ada.groups.add(Group.objects.create(name="writers"))
    item = Item.objects.create(name="one", tags=["a", "b,c"], extra={"deep": [1, None]}, price="12.50", span=(1, 5), raw=b"\0\xff", owner=ada)
    item = Item.objects.get(pk=item.pk, tags__contains=["a"], extra__deep__0=1, span__contains=3)
    show(item.pk, item.tags, item.extra, item.price, item.span.upper, bytes(item.raw), item.owner.username, ada.has_perm("auth.add_user"))


@step("bulk_create with ids, upserts, and updates by expressions")
def _():
    made = Item.objects.bulk_create([Item(name=f"item {n}", price=n) for n in range(1000)], batch_size=300)
    show(len({item.pk for item in made}), Item.objects.filter(price__gt=500).update(price=F("price") * 2))
    Item.objects.bulk_create([Item(name="item 1", price=77)], update_conflicts=True, unique_fields=["name"], update_fields=["price"])
    show(Item.objects.get(name="item 1").price, Item.objects.get_or_create(name="item 2")[1], Item.objects.update_or_create(name="new", defaults={"price": 3})[1])
    show(Item.objects.aggregate(Sum("price"), Count("id")))


@step("server-side cursors outside and inside of a transaction")
def _():
    show(sum(1 for _ in Item.objects.order_by("id").iterator(chunk_size=100)))
    rows = Item.objects.order_by("id").iterator(chunk_size=10)
    show([next(rows).name for _ in range(3)])
    rows.close()
    with transaction.atomic():
        show(sum(item.price for item in Item.objects.iterator(chunk_size=50)))


@step("atomic blocks, savepoints, and hooks of the commit")
def _():
    with transaction.atomic():
        Item.objects.create(name="outer")
        transaction.on_commit(lambda: show("committed"))
        try:
            with transaction.atomic():
                Item.objects.create(name="inner")
                Item.objects.create(name="outer")
        except Error as error:
            show(type(error).__name__)
        show(Item.objects.filter(name__in=["outer", "inner"]).count())
    try:
        with transaction.atomic():
            Item.objects.create(name="dropped")
            raise KeyError
    except KeyError:
        show(Item.objects.filter(name="dropped").exists())


@step("many threads that lock a row")
def _():
    def add(n):
        try:
            with transaction.atomic():
                item = Item.objects.select_for_update().get(name="item 5")
                item.price += n
                item.save(update_fields=["price"])
                if n % 4 == 0:
                    transaction.set_rollback(True)
        finally:
            connection.close()

    crowd(16, add)
    show(Item.objects.get(name="item 5").price)


@step("settings, timeouts and isolation of another connection")
def _():
    limited = Item.objects.using("limited")
    with connections["limited"].cursor() as cursor:
        cursor.execute("SELECT '2024-01-01 00:00:00+00'::timestamptz::text, current_setting('application_name'), current_setting('transaction_isolation')")
        show(cursor.fetchone())
        fails(lambda: cursor.execute("SELECT pg_sleep(60)"))
        cursor.execute("SET statement_timeout = '9s'")
    show(limited.count() == Item.objects.count())
    with connection.cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        show(cursor.fetchone())


@step("COPY and raw SQL by the cursor below")
def _():
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE copied (a int, b text)")
        with cursor.copy("COPY copied FROM STDIN") as copy:
            for n in range(5000):
                copy.write_row((n, f"row {n}"))
        cursor.execute("SELECT count(*), max(a) FROM copied WHERE b LIKE %s", ["row%"])
        show(cursor.fetchone())
    show([row.name for row in Item.objects.raw("SELECT * FROM contenttypes_item WHERE price = %s ORDER BY id", [77])])


@step("errors, and the connection goes on")
def _():
    fails(lambda: Item.objects.create(name="one"))
    fails(lambda: list(Item.objects.extra(where=["1/0 = 1"])))
    fails(lambda: list(Item.objects.raw("SELECT * FROM missing")))
    show(Item.objects.filter(name="one").count(), connection.is_usable())


@step("disconnect and connect again")
def _():
    connections.close_all()
    show(User.objects.get(groups__name="writers").username)
    call_command("flush", interactive=False, verbosity=0)
    show(User.objects.count())
    connections.close_all()
