using Hangfire;
using Hangfire.PostgreSql;
using Microsoft.Extensions.DependencyInjection;
using Npgsql;
using PeftServer.Core.Data;

namespace PeftServer.Core.Jobs;

/// <summary>Hangfire's side of the queue: alarms that say "one job waits".</summary>
public sealed class JobAlarms(JobStorage storage)
{
    public const string Train = "train";
    public const string Validate = "validate";

    private readonly BackgroundJobClient _client = new(storage);

    /// <summary>A job has come in: its files are to be checked.</summary>
    public void EnqueueValidation(string jobId) =>
        _client.Enqueue<IJobRunner>(runner => runner.ValidateAsync(jobId, CancellationToken.None));

    /// <summary>One more job waits to be trained.</summary>
    public void EnqueueTraining() =>
        _client.Enqueue<IJobRunner>(runner => runner.TrainNextAsync(null, CancellationToken.None));

    /// <summary>Alarms that no worker has taken yet.</summary>
    public long Waiting(string queue) => storage.GetMonitoringApi().EnqueuedCount(queue);

    /// <summary>Hangfire's tables. Done by `migrate`, never by the hosts: two of them would do it at once.</summary>
    internal static async Task InstallAsync(NpgsqlDataSource database, CancellationToken cancellationToken)
    {
        await using var connection = await database.OpenConnectionAsync(cancellationToken);
        await using var alone = new NpgsqlCommand("select pg_advisory_lock(hashtext('peftserver.hangfire'))", connection);
        await alone.ExecuteNonQueryAsync(cancellationToken); // released with the connection
        PostgreSqlObjectsInstaller.Install(connection, PeftDatabase.HangfireSchema);
    }

    internal static void AddTo(IServiceCollection services)
    {
        services.AddSingleton<JobStorage>(provider => new PostgreSqlStorage(
            new DataSourceConnectionFactory(provider.GetRequiredService<NpgsqlDataSource>()),
            new PostgreSqlStorageOptions
            {
                SchemaName = PeftDatabase.HangfireSchema,
                PrepareSchemaIfNecessary = false,
                UseSlidingInvisibilityTimeout = true,
                InvisibilityTimeout = TimeSpan.FromMinutes(1), // of an alarm; the job itself is guarded by its lease
                EnableLongPolling = true, // LISTEN instead of the poll
                QueuePollInterval = TimeSpan.FromSeconds(5),
            }));
        services.AddSingleton<JobAlarms>();
    }

    private sealed class DataSourceConnectionFactory(NpgsqlDataSource database) : IConnectionFactory
    {
        public NpgsqlConnection GetOrCreateConnection() => database.CreateConnection();
    }
}
