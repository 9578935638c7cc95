using Microsoft.EntityFrameworkCore;
using Npgsql;
using PeftServer.Core.Data;
using PeftServer.Testing;

namespace PeftServer.Core.Tests.Data;

public sealed class PeftDatabaseTests(TestDatabase database) : IClassFixture<TestDatabase>
{
    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Migrate_TwoAtOnceAndAgain_IsOneSchema()
    {
        var connection = await EmptyAsync();
        try
        {
            await Task.WhenAll(PeftDatabase.MigrateAsync(connection, Now), PeftDatabase.MigrateAsync(connection, Now));
            await PeftDatabase.MigrateAsync(connection, Now);

            await using var source = PeftDatabase.Open(connection);
            await using var db = new PeftDbContext(PeftDatabase.Options(new DbContextOptionsBuilder<PeftDbContext>(), source).Options);
            (await PeftDatabase.FaultAsync(db, Now)).ShouldBeNull();
        }
        finally
        {
            await database.Cluster.DropDatabaseAsync(connection);
        }
    }

    [Fact]
    public async Task Model_AndMigrations_Agree()
    {
        using var host = await CoreHost.OnAsync(database);
        await using var db = await host.DbAsync();

        db.Database.HasPendingModelChanges().ShouldBeFalse("add a migration: dotnet ef migrations add NAME --project src/PeftServer.Core");
    }

    [Fact]
    public async Task Fault_NoDatabase_SaysSo()
    {
        await using var source = PeftDatabase.Open("Host=/nowhere;Database=none;Username=none");
        await using var db = new PeftDbContext(PeftDatabase.Options(new DbContextOptionsBuilder<PeftDbContext>(), source).Options);

        (await PeftDatabase.FaultAsync(db, Now)).ShouldStartWith("The database does not answer");
    }

    private async Task<string> EmptyAsync()
    {
        var name = $"peftserver_{Guid.NewGuid():N}";
        await using var source = NpgsqlDataSource.Create(database.ConnectionString);
        await using var command = source.CreateCommand($"create database {name}");
        await command.ExecuteNonQueryAsync(Now);
        return new NpgsqlConnectionStringBuilder(database.ConnectionString) { Database = name, Pooling = false }.ConnectionString;
    }
}
