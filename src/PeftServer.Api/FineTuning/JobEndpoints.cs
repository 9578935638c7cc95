using System.Text.Json;
using Hangfire;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.Extensions.Options;
using PeftServer.Api.Documentation;
using PeftServer.Core;
using PeftServer.Core.Data;
using PeftServer.Core.Http;
using PeftServer.Core.Jobs;
using PeftServer.Core.Models;

namespace PeftServer.Api.FineTuning;

/// <summary><c>/v1/fine_tuning/jobs</c>.</summary>
internal static class JobEndpoints
{
    extension(WebApplication app)
    {
        public void MapFineTuning()
        {
            var jobs = app.MapGroup("/v1/fine_tuning/jobs").WithTags("Fine-tuning");

            jobs.MapPost("", JobCreation.CreateAsync).WithName("CreateFineTuningJob").WithSummary("Create a job")
                .WithHeader("Idempotency-Key", "A second request with the same key is answered with the first one's job.")
                .WithJobExamples().ProducesErrors(400, 409, 413, 415);
            jobs.MapGet("", ListAsync).WithName("ListFineTuningJobs").WithSummary("List jobs, newest first").WithPaging(usual: 20, most: 1000)
                .WithParameter("metadata[key]", "Only jobs that carry this pair of metadata; `metadata=null`: only jobs without any.").ProducesErrors(400);
            jobs.MapGet("/{id}", GetAsync).WithName("GetFineTuningJob").WithSummary("Look at a job").ProducesErrors(404);
            jobs.MapPost("/{id}/cancel", CancelAsync).WithName("CancelFineTuningJob").WithSummary("Cancel a job").ProducesErrors(404, 409);
            jobs.MapPost("/{id}/pause", PauseAsync).WithName("PauseFineTuningJob").WithSummary("Pause a job")
                .WithDescription("A running job writes a checkpoint and frees its device; a waiting one is passed over.").ProducesErrors(404, 409);
            jobs.MapPost("/{id}/resume", ResumeAsync).WithName("ResumeFineTuningJob").WithSummary("Resume a paused job").ProducesErrors(404, 409);
            jobs.MapGet("/{id}/events", JobEvents.GetAsync).WithName("ListFineTuningEvents").WithSummary("List a job's events, or follow them")
                .WithDescription("Newest first; with `Accept: text/event-stream` a stream from the first event on, or from behind `Last-Event-ID`, that ends with the job.")
                .WithPaging(usual: 20, most: 1000).WithHeader("Last-Event-ID", "Number of the last event that was seen.")
                .Produces<ListObject<EventObject>>(200, "application/json", "text/event-stream").ProducesErrors(400, 404);
            jobs.MapGet("/{id}/checkpoints", CheckpointsAsync).WithName("ListFineTuningCheckpoints").WithSummary("List a job's checkpoints, newest first")
                .WithPaging(usual: 10, most: 1000).ProducesErrors(400, 404);
        }
    }

    /// <summary>The answer where no job of the project has that id.</summary>
    public static ApiError NoJob(string id) =>
        ApiError.NotFound($"Could not find fine tune: {ForeignText.Clean(id, 100)}", "fine_tuning_job_id", "fine_tune_not_found");

    private static async Task<Results<Ok<ListObject<JobObject>>, ApiError>> ListAsync(
        PageQuery page, HttpRequest request, JobStore jobs, JobPresenter present, CancellationToken cancellationToken)
    {
        var limit = page.LimitOr(usual: 20, most: 1000);
        return await jobs.ListAsync(Tenancy.DefaultProject, page.After, limit, MetadataFilter(request.Query), cancellationToken) is { } found
            ? TypedResults.Ok(ListObject.Of<JobObject>([.. found.Items.Select(present.ToObject)], job => job.Id, found.HasMore))
            : page.NoSuch("job");
    }

    private static async Task<Results<Ok<JobObject>, ApiError>> GetAsync(
        string id, JobStore jobs, JobPresenter present, CancellationToken cancellationToken) =>
        await jobs.FindAsync(Tenancy.DefaultProject, id, cancellationToken) is { } job ? TypedResults.Ok(present.ToObject(job)) : NoJob(id);

    private static async Task<Results<Ok<JobObject>, ApiError>> CancelAsync(
        string id, JobStore jobs, JobPresenter present, CancellationToken cancellationToken)
    {
        if (await jobs.CancelAsync(Tenancy.DefaultProject, id, cancellationToken) is not var (job, accepted))
        {
            return NoJob(id);
        }

        // A cancel sent twice, as clients do after a lost answer, is as good as once.
        return accepted || job.State is JobState.Cancelled
            ? TypedResults.Ok(present.ToObject(job))
            : ApiError.Conflict(
                $"The job is over: it has {job.State.ToString().ToLowerInvariant()}. There is nothing to cancel.",
                code: "job_not_cancellable");
    }

    private static async Task<Results<Ok<JobObject>, ApiError>> PauseAsync(
        string id, JobStore jobs, JobPresenter present, CancellationToken cancellationToken)
    {
        if (await jobs.PauseAsync(Tenancy.DefaultProject, id, cancellationToken) is not var (job, accepted))
        {
            return NoJob(id);
        }

        return accepted || job.State is JobState.Paused
            ? TypedResults.Ok(present.ToObject(job))
            : ApiError.Conflict($"A job that is {NameOf(job.State)} cannot be paused; one that is queued or running can.", code: "job_not_pausable");
    }

    private static async Task<Results<Ok<JobObject>, ApiError>> ResumeAsync(
        string id, JobStore jobs, JobAlarms alarms, JobPresenter present, CancellationToken cancellationToken)
    {
        if (await jobs.ResumeAsync(Tenancy.DefaultProject, id, cancellationToken) is not var (job, accepted))
        {
            return NoJob(id);
        }

        if (accepted && job.State is JobState.Queued)
        {
            Ring(alarms);
        }

        // Sent twice, as clients do after a lost answer, it is as good as once.
        return accepted || job.State is JobState.Queued or JobState.Running
            ? TypedResults.Ok(present.ToObject(job))
            : ApiError.Conflict($"The job is {NameOf(job.State)}; only a paused one can be resumed.", code: "job_not_resumable");
    }

    // The row is there; were the alarm lost, a worker's sweep would find it.
    private static void Ring(JobAlarms alarms)
    {
        try
        {
            alarms.EnqueueTraining();
        }
        catch (Exception e) when (e is BackgroundJobClientException || DatabaseFaults.IsPassing(e))
        {
        }
    }

    private static string NameOf(JobState state) => JsonNamingPolicy.SnakeCaseLower.ConvertName(state.ToString());

    private static async Task<Results<Ok<ListObject<CheckpointObject>>, ApiError>> CheckpointsAsync(
        string id, PageQuery page, JobStore jobs, CancellationToken cancellationToken)
    {
        if (await jobs.FindAsync(Tenancy.DefaultProject, id, cancellationToken) is null)
        {
            return NoJob(id);
        }

        return await jobs.ListCheckpointsAsync(id, page.After, page.LimitOr(usual: 10, most: 1000), cancellationToken) is { } found
            ? TypedResults.Ok(ListObject.Of<CheckpointObject>([.. found.Items.Select(CheckpointObject.From)], row => row.Id, found.HasMore))
            : page.NoSuch("checkpoint");
    }

    // metadata[team]=mail&metadata[run]=7, or metadata=null: those without.
    private static Dictionary<string, string>? MetadataFilter(IQueryCollection query)
    {
        if (query["metadata"] is [var all])
        {
            return all == "null"
                ? []
                : throw new ApiErrorException(ApiError.BadRequest(
                    "metadata is a filter of the form metadata[key]=value, or metadata=null.",
                    "metadata", "invalid_value"));
        }

        var pairs = query
            .Where(entry => entry.Key.StartsWith("metadata[", StringComparison.Ordinal) && entry.Key.EndsWith(']'))
            .ToDictionary(entry => entry.Key["metadata[".Length..^1], entry => entry.Value.ToString());
        return pairs.Count > 0 ? pairs : null;
    }
}

/// <summary>Shows jobs as the settings want it.</summary>
internal sealed class JobPresenter(IOptions<ApiOptions> api, IOptions<ModelsOptions> models)
{
    public JobObject ToObject(FineTuningJob job) => JobObject.From(job, models.Value.Organization, api.Value.StrictNull);
}
