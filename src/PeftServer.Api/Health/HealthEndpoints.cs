using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;
using PeftServer.Api.Security;
using PeftServer.Core.Data;

namespace PeftServer.Api.Health;

/// <summary>For supervisors: is the process alive, can it work. On both listeners, without a key.</summary>
internal static partial class HealthEndpoints
{
    private static readonly string[] Methods = ["GET", "HEAD"];
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(5);

    extension(WebApplication app)
    {
        public void MapHealth()
        {
            var health = app.MapGroup("").WithTags("Health").AllowAnonymous().OnBothListeners();

            health.MapMethods("/healthz", Methods, Alive).WithName("Alive").WithSummary("The process answers");
            health.MapMethods("/health", Methods, Alive).ExcludeFromDescription(); // as other servers of models call it
            health.MapMethods("/readyz", Methods, ReadyAsync).WithName("Ready").WithSummary("The database answers and is migrated").Produces<HealthStatus>(503);
        }
    }

    private static Ok<HealthStatus> Alive() => TypedResults.Ok(new HealthStatus("ok"));

    private static async Task<Results<Ok<HealthStatus>, JsonHttpResult<HealthStatus>>> ReadyAsync(
        IDbContextFactory<PeftDbContext> contexts, ILogger<HealthStatus> logger, CancellationToken cancellationToken)
    {
        if (await FaultAsync(contexts, cancellationToken) is not { } fault)
        {
            return TypedResults.Ok(new HealthStatus("ok"));
        }

        NotReady(logger, fault);
        var reason = fault.Split(':')[0]; // what follows names hosts and users, and anybody may ask
        return TypedResults.Json(new HealthStatus("unavailable", reason), statusCode: StatusCodes.Status503ServiceUnavailable);
    }

    private static async Task<string?> FaultAsync(IDbContextFactory<PeftDbContext> contexts, CancellationToken cancellationToken)
    {
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        patience.CancelAfter(Patience);
        try
        {
            await using var db = await contexts.CreateDbContextAsync(patience.Token);
            return await PeftDatabase.FaultAsync(db, patience.Token);
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            return "The database does not answer: no word within 5 s";
        }
    }

    [LoggerMessage(LogLevel.Warning, "Not ready: {Fault}")]
    private static partial void NotReady(ILogger logger, string fault);
}

/// <summary>How the process is.</summary>
/// <param name="Status">ok or unavailable.</param>
/// <param name="Reason">What is missing, and what to do.</param>
public sealed record HealthStatus(string Status, string? Reason = null);
