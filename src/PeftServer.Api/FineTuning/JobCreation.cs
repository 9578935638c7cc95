using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Hangfire;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.Extensions.Options;
using PeftServer.Core;
using PeftServer.Core.Data;
using PeftServer.Core.Files;
using PeftServer.Core.Http;
using PeftServer.Core.Jobs;
using PeftServer.Core.Models;
using PeftServer.Core.Storage;
using PeftServer.Engine.Adapters;

namespace PeftServer.Api.FineTuning;

/// <summary>
/// Creates a job, once: a client that lost the answer sends its request again, and must not train twice. It is known by its
/// Idempotency-Key; or, since OpenAI's SDKs send none, by a retry count above 0 on a body that came a short while ago.
/// </summary>
internal static partial class JobCreation
{
    private const int MaxKeyLength = 255;

    public static async Task<Results<Ok<JobObject>, ApiError>> CreateAsync(
        JsonBody<CreateJobRequest> body,
        HttpRequest http,
        JobStore jobs,
        JobAlarms alarms,
        FileStore files,
        ModelDirectory models,
        IArtifactStore store,
        JobPresenter present,
        IOptions<ApiOptions> options,
        ILogger<CreateJobRequest> logger,
        CancellationToken cancellationToken)
    {
        var sha256 = Convert.ToHexStringLower(SHA256.HashData(body.Utf8.Span));
        var key = http.Headers["Idempotency-Key"] is [{ Length: > 0 } given] ? given : null;
        if (key?.Length > MaxKeyLength)
        {
            return ApiError.BadRequest($"The Idempotency-Key is longer than {MaxKeyLength} characters.", "Idempotency-Key", "invalid_value");
        }

        var window = TimeSpan.FromMinutes(options.Value.RetryWindowMinutes);
        if (key is null && IsRetry(http) && await jobs.FindRecentAsync(Tenancy.DefaultProject, sha256, window, cancellationToken) is { } first)
        {
            return TypedResults.Ok(present.ToObject(first));
        }

        var request = body.Value;
        using var document = JsonDocument.Parse(body.Utf8);
        var model = await models.ResolveAsync(Tenancy.DefaultProject, request.Model, cancellationToken);
        var starting = model?.Adapter is { } adapter ? await SettingsOfAsync(adapter, store, cancellationToken) : null;
        var (settings, faults) = JobSettings.Resolve(request, document.RootElement, starting);
        faults = [.. faults, .. await CheckNamesAsync(request, model, files, models, cancellationToken), .. await CheckEmbeddersAsync(settings, models, cancellationToken)];
        if (faults.Count > 0)
        {
            return ApiError.From(faults);
        }

        var wanted = ToRow(request, model!, settings, body.Utf8, sha256, key);
        var job = await jobs.CreateAsync(wanted, cancellationToken);
        if (job.RequestSha256 != sha256)
        {
            return ApiError.Conflict(
                "The Idempotency-Key was used before, with another request. Use a new key for a new job.",
                "Idempotency-Key", "idempotency_key_reused");
        }

        if (job.Id == wanted.Id)
        {
            Ring(alarms, job.Id, logger);
        }

        return TypedResults.Ok(present.ToObject(job));
    }

    // The row is there, so the client has its job. Were the alarm lost, a worker's sweep would find the row.
    private static void Ring(JobAlarms alarms, string jobId, ILogger logger)
    {
        try
        {
            alarms.EnqueueValidation(jobId);
        }
        catch (Exception e) when (e is BackgroundJobClientException || DatabaseFaults.IsPassing(e))
        {
            AlarmLost(logger, jobId, e.Message);
        }
    }

    private static FineTuningJob ToRow(CreateJobRequest request, ResolvedModel model, JobSettings settings, ReadOnlyMemory<byte> body, string sha256, string? key) => new()
    {
        BaseModel = model.BaseName,
        StartingModel = model.Adapter is null ? null : model.Name,
        TrainingFile = request.TrainingFile,
        ValidationFile = request.ValidationFile,
        Peft = settings.Peft,
        Method = settings.Method,
        Training = settings.Training,
        AutoSettings = settings.Auto,
        Suffix = request.Suffix,
        Seed = settings.Training.Seed,
        Metadata = request.Metadata is { Count: > 0 } pairs ? pairs : null,
        Request = ForeignText.Clean(Encoding.UTF8.GetString(body.Span), int.MaxValue),
        RequestSha256 = sha256,
        IdempotencyKey = key is null ? null : ForeignText.Clean(key, MaxKeyLength),
    };

    private static bool IsRetry(HttpRequest http) =>
        int.TryParse(http.Headers["X-Stainless-Retry-Count"], NumberStyles.None, CultureInfo.InvariantCulture, out var count) && count > 0;

    private static async Task<IReadOnlyList<ErrorDetail>> CheckNamesAsync(
        CreateJobRequest request, ResolvedModel? model, FileStore files, ModelDirectory models, CancellationToken cancellationToken)
    {
        var faults = new List<ErrorDetail>();
        var name = ForeignText.Clean(request.Model, 200);
        if (model?.Base is null)
        {
            faults.Add(new(
                model is null
                    ? $"Model {name} is not available for fine-tuning or does not exist. GET /v1/models lists the models."
                    : $"Model {name} is not available for fine-tuning: its base '{model.BaseName}' is not in the server's model root.",
                "model", "model_not_available"));
        }

        // A mixture that training goes on from brings its experts along.
        foreach (var expert in (model?.Adapter is null ? request.Peft : null)?.Experts ?? [])
        {
            var found = await models.ResolveAsync(Tenancy.DefaultProject, expert.Name, cancellationToken);
            if (found?.Adapter is null || found.BaseName != request.Model)
            {
                faults.Add(new(
                    $"'{ForeignText.Clean(expert.Name, 200)}' is no fine-tuned model of {name}. GET /v1/models lists the models; adapters that work together must be of one base.",
                    $"peft.{ForeignText.Clean(expert.Field, 50)}", "model_not_available"));
            }
        }

        await CheckFileAsync("training_file", request.TrainingFile);
        await CheckFileAsync("validation_file", request.ValidationFile);
        return faults;

        async Task CheckFileAsync(string field, string? id)
        {
            if (id is null)
            {
                return;
            }

            var file = await files.FindAsync(Tenancy.DefaultProject, id, cancellationToken);
            if (file?.Purpose is not "fine-tune")
            {
                faults.Add(new(file is null
                    ? $"invalid {field}: there is no file '{ForeignText.Clean(id, 100)}'. POST /v1/files uploads one."
                    : $"invalid {field}: '{id}' has the purpose '{file.Purpose}'. Upload it with the purpose 'fine-tune'.", field));
            }
        }
    }

    private static async Task<IReadOnlyList<ErrorDetail>> CheckEmbeddersAsync(JobSettings settings, ModelDirectory models, CancellationToken cancellationToken)
    {
        var faults = new List<ErrorDetail>();
        foreach (var name in settings.Method.EmbeddingModels)
        {
            if (await models.ResolveAsync(Tenancy.DefaultProject, name, cancellationToken) is not { Base: not null, Adapter: null })
            {
                faults.Add(new(
                    $"'{ForeignText.Clean(name, 200)}' is no base model of this server. GET /v1/models lists the models; cosine needs one that embeds texts.",
                    "method.grpo.grader.embedding_model", "model_not_available"));
            }
        }

        return faults;
    }

    /// <summary>The settings of an adapter, out of its adapter_config.json.</summary>
    private static async Task<AdapterConfig> SettingsOfAsync(AdapterManifest adapter, IArtifactStore store, CancellationToken cancellationToken)
    {
        var file = adapter.Files.Single(file => file.Path == Engine.Adapters.AdapterFile.ConfigName);
        using var text = new StreamReader(await store.OpenAsync(file.Sha256, cancellationToken));
        return Engine.Adapters.AdapterFile.ParseConfig(await text.ReadToEndAsync(cancellationToken));
    }

    [LoggerMessage(LogLevel.Warning, "Job {JobId} waits for a worker's sweep: its alarm could not be set. {Reason}")]
    private static partial void AlarmLost(ILogger logger, string jobId, string reason);
}
