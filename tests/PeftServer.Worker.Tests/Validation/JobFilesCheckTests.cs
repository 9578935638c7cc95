using System.Text;
using PeftServer.Core.Files;
using PeftServer.Core.Jobs;
using PeftServer.Core.Storage;
using PeftServer.Engine.Training;
using PeftServer.Testing;

namespace PeftServer.Worker.Tests.Validation;

public sealed class JobFilesCheckTests(TestDatabase database) : IClassFixture<TestDatabase>
{
    private const string Good = """{"messages": [{"role": "user", "content": "Is this spam?"}, {"role": "assistant", "content": "ham"}]}""";
    private const string NothingToLearn = """{"messages": [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "ham", "weight": 0}]}""";

    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Validate_GoodFile_QueuesTheJobWithAnAccountOfItsRows()
    {
        var (job, events) = await ValidateAsync($"{Good}\n{Good}\n", job => job.State is not JobState.ValidatingFiles);

        job.State.ShouldNotBe(JobState.Failed, job.ErrorMessage);
        events.ShouldContain(row => row.Message.Contains(": 2 of 2 rows are used"));
        events.ShouldContain(row => row.State == JobState.Queued && row.Message == "Files validated, moving job to queued state");
    }

    [Fact]
    public async Task Validate_SomeRowsUnusable_WarnsNamingTheLines()
    {
        var (_, events) = await ValidateAsync($"{Good}\nnot json\n", job => job.State is not JobState.ValidatingFiles);

        events.ShouldContain(row => row.Level == TrainingEventLevel.Warn && row.Message.Contains("1 rows are not used. Line 2: "));
    }

    [Fact]
    public async Task Validate_NothingToLearn_FailsNamingFileAndRemedy()
    {
        var (job, _) = await ValidateAsync($"{NothingToLearn}\n", job => job.State.IsFinal);

        (job.State, job.ErrorCode, job.ErrorParam).ShouldBe((JobState.Failed, "invalid_training_file", "training_file"));
        job.ErrorMessage.ShouldNotBeNull();
        job.ErrorMessage.ShouldContain(job.TrainingFile);
    }

    [Fact]
    public async Task Validate_EmptyFile_Fails()
    {
        var (job, _) = await ValidateAsync("\n", job => job.State.IsFinal);

        (job.State, job.ErrorCode).ShouldBe((JobState.Failed, "invalid_training_file"));
    }

    [Fact]
    public async Task Validate_UnknownModel_FailsNamingIt()
    {
        var (job, _) = await ValidateAsync($"{Good}\n", job => job.State.IsFinal, baseModel: "gone");

        (job.ErrorCode, job.ErrorParam).ShouldBe(("model_not_available", "model"));
    }

    [Fact]
    public async Task Validate_RowsOfAnotherMethod_FailsNamingLineRuleAndRemedy()
    {
        var (job, _) = await ValidateAsync($"{Good}\n", job => job.State.IsFinal, method: new TrainingMethod { Type = TrainingMethodType.Classification });

        (job.State, job.ErrorCode, job.ErrorParam).ShouldBe((JobState.Failed, "invalid_training_file", "training_file"));
        job.ErrorMessage.ShouldNotBeNull();
        job.ErrorMessage.ShouldContain("label(s)");
    }

    [Theory]
    [InlineData(TrainingMethodType.Dpo, "Line 1: The row has neither chosen and rejected")]
    [InlineData(TrainingMethodType.Grpo, "Line 1: messages[1].role: The chat ends with an assistant message, which the model shall write itself. Leave that message out")]
    [InlineData(TrainingMethodType.Embedding, "Line 1: anchor: The row lacks anchor. Add anchor: a text. (missing_field)")]
    public async Task Validate_RowsThatTheMethodCannotRead_FailsNamingThem(TrainingMethodType type, string reason)
    {
        var (job, _) = await ValidateAsync($"{Good}\n", job => job.State.IsFinal, method: new TrainingMethod { Type = type });

        (job.State, job.ErrorCode, job.ErrorParam).ShouldBe((JobState.Failed, "invalid_training_file", "training_file"));
        job.ErrorMessage.ShouldNotBeNull();
        job.ErrorMessage.ShouldContain(reason);
    }

    [Fact]
    public async Task Validate_BaseWithoutTheHead_FailsNamingIt()
    {
        var (job, _) = await ValidateAsync("""{"source": "a", "target": "b"}""", job => job.State.IsFinal, method: new TrainingMethod { Type = TrainingMethodType.Seq2Seq });

        (job.ErrorCode, job.ErrorParam).ShouldBe(("model_not_usable", "model"));
    }

    [Fact]
    public async Task Validate_Pairs_AreReadForTheirMethod()
    {
        var (job, events) = await ValidateAsync("""{"prompt": "a", "chosen": "b", "rejected": "c"}""", job => job.State is not JobState.ValidatingFiles, method: new TrainingMethod { Type = TrainingMethodType.Orpo });

        job.State.ShouldNotBe(JobState.Failed, job.ErrorMessage);
        events.ShouldContain(row => row.Message.Contains(": 1 of 1 rows are used"));
    }

    [Fact]
    public async Task Validate_AutoSettings_ArePickedAndTheReasonIsTold()
    {
        var (job, events) = await ValidateAsync(
            string.Concat(Enumerable.Repeat($"{Good}\n", 150)), job => job.State is not JobState.ValidatingFiles, auto: [AutoSettings.Epochs, AutoSettings.BatchSize, AutoSettings.LearningRate]);

        (job.Training.NumTrainEpochs, job.Training.PerDeviceTrainBatchSize, job.Training.LearningRate).ShouldBe((5, 2, 1e-3));
        job.AutoSettings.ShouldBeEmpty();
        events.ShouldContain(row => row.Message == "n_epochs is auto: 5, since the file has 150 rows");
        events.ShouldContain(row => row.Message.StartsWith("learning_rate_multiplier is auto: 5, a learning_rate of 0.001, since the model is small"));
    }

    [Fact]
    public async Task Validate_AlarmLost_TheSweepRings()
    {
        var (job, _) = await ValidateAsync($"{Good}\n", job => job.State is not JobState.ValidatingFiles, ring: false);

        job.State.ShouldNotBe(JobState.Failed, job.ErrorMessage);
    }

    private async Task<(FineTuningJob Job, IReadOnlyList<JobEvent> Events)> ValidateAsync(
        string rows, Func<FineTuningJob, bool> reached, string baseModel = "tiny-llama", bool ring = true, TrainingMethod? method = null, IReadOnlyList<string>? auto = null)
    {
        using var jobs = await TestJobs.OnAsync(database);
        using var worker = await database.StartHostAsync(builder => builder.AddPeftWorker(), TestJobs.WorkerSettings);
        using var content = new MemoryStream(Encoding.UTF8.GetBytes(rows));
        var blob = await jobs.Get<IArtifactStore>().PutAsync(content, 1 << 20, Now);
        var file = await jobs.Get<FileStore>().AddAsync(
            new StoredFile { Filename = "train.jsonl", Purpose = "fine-tune", Bytes = blob.Bytes, Sha256 = blob.Sha256 }, Now);
        var wanted = TestDatabase.NewJob(file.Id, baseModel, method);
        wanted.AutoSettings = auto ?? [];
        var job = await jobs.Get<JobStore>().CreateAsync(wanted, Now);
        if (ring)
        {
            jobs.Get<JobAlarms>().EnqueueValidation(job.Id);
        }

        var after = await jobs.UntilAsync(job.Id, reached);
        var events = await jobs.EventsOfAsync(job.Id);
        await worker.StopAsync(Now);
        return (after, events);
    }
}
