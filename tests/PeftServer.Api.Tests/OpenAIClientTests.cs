using System.ClientModel;
using System.Text;
using OpenAI;
using OpenAI.Files;
using OpenAI.FineTuning;
using OpenAI.Models;
using PeftServer.Core.Jobs;
using PeftServer.Core.Storage;
using PeftServer.Testing;

namespace PeftServer.Api.Tests;

/// <summary>The NuGet client of OpenAI, unmodified, against this server.</summary>
public sealed class OpenAIClientTests(TestCluster cluster)
{
    private const string Chat = """{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}""";

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Client_FromUploadToModel_UnderstandsEveryAnswer()
    {
        await using var server = await ApiServer.StartAsync(cluster, ("Auth:ApiKey", "sk-test"));
        var key = new ApiKeyCredential("sk-test");
        var endpoint = new Uri(server.Address, "/v1");
        var files = new OpenAIFileClient(key, new OpenAIClientOptions { Endpoint = endpoint });
        var tuning = new FineTuningClient(key, new FineTuningClientOptions { Endpoint = endpoint });
        var models = new OpenAIModelClient(key, new OpenAIClientOptions { Endpoint = endpoint });

        OpenAIFile file = await files.UploadFileAsync(BinaryData.FromString(Chat), "train.jsonl", FileUploadPurpose.FineTune);
        file.Filename.ShouldBe("train.jsonl");
        (await files.GetFilesAsync(FilePurpose.FineTune, Token)).Value.Single().Id.ShouldBe(file.Id);
        Encoding.UTF8.GetString((await files.DownloadFileAsync(file.Id, Token)).Value).ShouldBe(Chat);

        var job = await tuning.FineTuneAsync("tiny-llama", file.Id, waitUntilCompleted: false, new FineTuningOptions
        {
            Suffix = "spam",
            Seed = 7,
            TrainingMethod = FineTuningTrainingMethod.CreateSupervised(epochCount: 2),
        }, Token);
        job.Status.ToString().ShouldBe("validating_files");
        var finished = await FinishAsync(server, job.JobId);

        await job.WaitForCompletionAsync(Token);
        job.Status.ShouldBe(FineTuningStatus.Succeeded);
        job.Value.ShouldBe(finished);
        var listed = new List<string>();
        await foreach (var entry in tuning.GetJobsAsync(options: null, Token))
        {
            listed.Add(entry.JobId);
        }

        listed.ShouldBe([job.JobId]);
        var messages = new List<string>();
        await foreach (var entry in job.GetEventsAsync(new GetEventsOptions { PageSize = 2 }, Token))
        {
            messages.Add(entry.Message);
        }

        messages[0].ShouldBe("The job has successfully completed");
        messages.Count.ShouldBeGreaterThan(5);
        await foreach (var _ in job.GetCheckpointsAsync(options: null, Token))
        {
            Assert.Fail("This job keeps no checkpoints.");
        }

        (await models.GetModelAsync(finished, Token)).Value.Id.ShouldBe(finished);
        (await models.GetModelsAsync(Token)).Value.Select(model => model.Id).ShouldBe(["tiny-llama", finished]);
        (await models.DeleteModelAsync(finished, Token)).Value.Deleted.ShouldBeTrue();
        (await files.DeleteFileAsync(file.Id, Token)).Value.Deleted.ShouldBeTrue();
    }

    [Fact]
    public async Task Client_WrongRequest_ReadsTheError()
    {
        await using var server = await ApiServer.StartAsync(cluster);
        var tuning = new FineTuningClient(new ApiKeyCredential("none"), new FineTuningClientOptions { Endpoint = new Uri(server.Address, "/v1") });

        var refused = await Should.ThrowAsync<ClientResultException>(() => tuning.FineTuneAsync("tiny-llama", "file-none", waitUntilCompleted: false, cancellationToken: Token));

        refused.Status.ShouldBe(400);
        refused.Message.ShouldContain("training_file");
    }

    // What a worker does, in short.
    private static async Task<string> FinishAsync(ApiServer server, string jobId)
    {
        var lease = await server.StartJobAsync(jobId);
        await server.MeasureAsync(lease, "Step 1/1: training loss=0.50", new { step = 1, total_steps = 1, train_loss = 0.5 });
        var blob = await server.Services.GetRequiredService<IArtifactStore>().PutAsync(new MemoryStream([1, 2, 3]), 10, Token);
        var name = $"ft:tiny-llama:peftserver:spam:{jobId[6..]}";
        await server.Services.GetRequiredService<JobWriter>().WriteAsync(
            lease,
            transaction => transaction.SucceedAsync(new AdapterManifest([new("adapter_config.json", blob.Sha256, blob.Bytes)]), "LORA", name, 123, Token),
            Token);
        return name;
    }
}
