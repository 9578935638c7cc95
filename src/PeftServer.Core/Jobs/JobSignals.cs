using System.Collections.Concurrent;
using System.Threading.Channels;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Npgsql;

namespace PeftServer.Core.Jobs;

/// <summary>
/// Wakes whoever waits for a job to change. NOTIFY carries the id and nothing else; what changed is read from the rows. A
/// connection that breaks is opened again, and a slow poll stands behind it all, so that a lost signal costs seconds only.
/// </summary>
public sealed partial class JobSignals(NpgsqlDataSource database, TimeProvider clock, ILogger<JobSignals> logger) : BackgroundService
{
    /// <summary>The NOTIFY channel.</summary>
    public const string Channel = "peft_jobs";

    private static readonly TimeSpan KeepAlive = TimeSpan.FromSeconds(15);
    private static readonly TimeSpan Pause = TimeSpan.FromSeconds(1);
    private readonly ConcurrentDictionary<JobSubscription, string?> _subscriptions = new();

    /// <summary>
    /// Signals of one job, or of all when <paramref name="jobId"/> is null. Subscribe first, read the rows second, wait
    /// third: then nothing is missed.
    /// </summary>
    public JobSubscription Subscribe(string? jobId, TimeSpan? poll = null)
    {
        var subscription = new JobSubscription(this, poll ?? TimeSpan.FromSeconds(2), clock);
        _subscriptions[subscription] = jobId;
        return subscription;
    }

    internal void Remove(JobSubscription subscription) => _subscriptions.TryRemove(subscription, out _);

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        while (!stoppingToken.IsCancellationRequested)
        {
            try
            {
                await ListenAsync(stoppingToken);
            }
            catch (Exception e) when (!stoppingToken.IsCancellationRequested && e is NpgsqlException or IOException or TimeoutException or InvalidOperationException)
            {
                Disconnected(logger, e.Message);
                await Task.Delay(Pause, clock, stoppingToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            }
            catch (OperationCanceledException)
            {
                return;
            }
        }
    }

    private async Task ListenAsync(CancellationToken cancellationToken)
    {
        await using var connection = await database.OpenConnectionAsync(cancellationToken);
        connection.Notification += (_, notification) => Wake(notification.Payload);
        await using (var listen = new NpgsqlCommand($"listen {Channel}", connection))
        {
            await listen.ExecuteNonQueryAsync(cancellationToken);
        }

        Wake(jobId: null); // what was said while nobody listened
        while (true)
        {
            if (!await connection.WaitAsync(KeepAlive, cancellationToken))
            {
                await using var ping = new NpgsqlCommand("select 1", connection); // a half-open connection shows itself
                await ping.ExecuteNonQueryAsync(cancellationToken);
            }
        }
    }

    private void Wake(string? jobId)
    {
        foreach (var (subscription, wanted) in _subscriptions)
        {
            if (jobId is null || wanted is null || wanted == jobId)
            {
                subscription.Signal();
            }
        }
    }

    [LoggerMessage(LogLevel.Warning, "Not listening to the database, polling until it is back: {Reason}")]
    private static partial void Disconnected(ILogger logger, string reason);
}

/// <summary>One waiter of <see cref="JobSignals"/>.</summary>
public sealed class JobSubscription : IDisposable
{
    private readonly Channel<bool> _signals = System.Threading.Channels.Channel.CreateBounded<bool>(
        new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite });
    private readonly JobSignals _source;
    private readonly TimeSpan _poll;
    private readonly TimeProvider _clock;

    internal JobSubscription(JobSignals source, TimeSpan poll, TimeProvider clock) => (_source, _poll, _clock) = (source, poll, clock);

    /// <summary>Returns when something was signalled since the last call, or when it is time to look anyway.</summary>
    public async Task WaitAsync(CancellationToken cancellationToken)
    {
        using var timeout = new CancellationTokenSource(_poll, _clock);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(timeout.Token, cancellationToken);
        try
        {
            await _signals.Reader.ReadAsync(either.Token);
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            // Time to look.
        }
    }

    public void Dispose() => _source.Remove(this);

    internal void Signal() => _signals.Writer.TryWrite(true);
}
