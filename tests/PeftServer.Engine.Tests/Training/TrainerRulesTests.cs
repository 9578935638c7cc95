using System.Buffers.Binary;
using System.Text;
using PeftServer.Engine.Training;

namespace PeftServer.Engine.Tests.Training;

/// <summary>What a run does besides its steps: evaluates, saves, stops, splits, and tells.</summary>
public sealed class TrainerRulesTests
{
    private static readonly string[] Texts = [.. Enumerable.Range(0, 8).Select(i =>
        $$"""{"prompt": "Number {{i}}: ", "completion": "{{string.Concat(Enumerable.Repeat("word ", i + 1))}}"}""")];

    private static readonly string[] Other = ["""{"prompt": "Colour: ", "completion": "blue"}"""];

    [Fact]
    public void Run_LoadBestModelAtEnd_GivesTheWeightsOfTheBestEvaluation()
    {
        using var best = new TrainingRun(Texts, change: a => a with { MaxSteps = 16, LearningRate = 0.05, EvalSteps = 1, LoadBestModelAtEnd = true }, evaluated: Other);
        best.Run().ShouldBe(TrainingOutcome.Succeeded);
        var losses = best.Metrics("valid_loss").ToList();
        var at = losses.IndexOf(losses.Min()) + 1;
        at.ShouldBeLessThan(16); // at this rate the words drive the colour out
        best.Messages.ShouldContain($"Took the weights after step {at} back");

        using var upToThere = new TrainingRun(Texts, change: a => a with { MaxSteps = at, LearningRate = 0.05, EvalSteps = 1 }, evaluated: Other);
        upToThere.Run();
        ShouldBeSame(best, upToThere);
    }

    [Fact]
    public void Run_EarlyStopping_StopsAfterSoManyEvaluationsWithoutGain()
    {
        using var run = new TrainingRun(Texts, change: a => a with { MaxSteps = 40, LearningRate = 0.05, EvalSteps = 1, EarlyStoppingPatience = 3 }, evaluated: Other);

        run.Run().ShouldBe(TrainingOutcome.Succeeded);

        var losses = run.Metrics("valid_loss").ToList();
        losses.Count.ShouldBeLessThan(40);
        losses.SkipLast(3).Min().ShouldBe(losses.Min());
        run.Messages.ShouldContain("Stopped early");
    }

    [Fact]
    public void Run_EarlyStoppingAndPause_GivesWhatAWholeRunGives()
    {
        static TrainingArguments Change(TrainingArguments a) => a with { MaxSteps = 30, LearningRate = 0.05, EvalSteps = 1, EarlyStoppingPatience = 3, LoadBestModelAtEnd = true, SaveSteps = 2 };
        using var whole = new TrainingRun(Texts, change: Change, evaluated: Other);
        using var paused = new TrainingRun(Texts, change: Change, evaluated: Other);
        whole.Run();
        paused.Run(3, StopRequest.Pause).ShouldBe(TrainingOutcome.Paused);
        paused.Run().ShouldBe(TrainingOutcome.Succeeded);

        paused.Losses.ShouldBe(whole.Losses);
        ShouldBeSame(paused, whole);
    }

    [Theory]
    [InlineData(2, "step-4.safetensors,step-6.safetensors")]
    [InlineData(null, "step-6.safetensors")]
    public void Run_SaveTotalLimit_KeepsTheNewest(int? limit, string files)
    {
        using var run = new TrainingRun(Texts, change: a => a with { MaxSteps = 7, SaveSteps = 2, SaveTotalLimit = limit });
        run.Run();

        Directory.GetFiles(Path.Combine(run.Folder, "checkpoints"), "*.safetensors").Select(path => Path.GetFileName(path)).Order().ShouldBe(files.Split(','));
    }

    [Fact]
    public void Run_SaveStrategyNo_WritesNoCheckpoint()
    {
        using var run = new TrainingRun(Texts, change: a => a with { SaveStrategy = SaveStrategy.No, SaveSteps = null });
        run.Run();

        Directory.Exists(Path.Combine(run.Folder, "checkpoints")).ShouldBeFalse();
    }

    [Fact]
    public void Run_EvalStrategyNo_DoesNotEvaluate()
    {
        using var run = new TrainingRun(Texts, change: a => a with { EvalStrategy = IntervalStrategy.No }, evaluated: Other);
        run.Run();

        run.Metrics("valid_loss").ShouldBeEmpty();
    }

    [Fact]
    public void Run_GradientCheckpointing_ComputesAgainAndChangesNothing()
    {
        using var kept = new TrainingRun(Texts, dropout: 0, change: a => a with { MaxSteps = 3, GradientCheckpointing = false });
        using var again = new TrainingRun(Texts, dropout: 0, change: a => a with { MaxSteps = 3, GradientCheckpointing = true });
        kept.Run().ShouldBe(TrainingOutcome.Succeeded);
        again.Run().ShouldBe(TrainingOutcome.Succeeded);

        kept.Messages.ShouldContain("activations kept");
        again.Messages.ShouldContain("activations computed again");
        again.Losses.Zip(kept.Losses).ShouldAllBe(pair => Math.Abs(pair.First - pair.Second) < 1e-4 * pair.Second);
    }

    [Fact]
    public void Run_LongEvaluation_SaysHowFarItIs()
    {
        using var run = new TrainingRun(Texts, change: a => a with { MaxSteps = 1 }, evaluated: Texts) { Clock = new SlowClock() };

        run.Run().ShouldBe(TrainingOutcome.Succeeded);

        // Two rows a batch and four seconds a look: after the third batch twelve seconds are gone, after the last nothing is left to say.
        run.Messages.ShouldContain("Evaluated 6 of 8 validation rows; about 00:00:04 left.");
        run.Messages.Split("Evaluated ").Length.ShouldBe(2);
    }

    [Theory]
    [InlineData("load_best_model_at_end")]
    [InlineData("early_stopping_patience")]
    [InlineData("metric_for_best_model")]
    public void Run_SettingThatNeedsEvaluations_IsRefusedWithoutThem(string field)
    {
        using var run = new TrainingRun(Texts, change: a => field switch
        {
            "load_best_model_at_end" => a with { LoadBestModelAtEnd = true },
            "early_stopping_patience" => a with { EarlyStoppingPatience = 1 },
            _ => a with { MetricForBestModel = "loss" },
        });

        Should.Throw<TrainingException>(() => run.Run()).Message.ShouldStartWith($"{field} needs evaluations");
    }

    [Fact]
    public void Run_UnknownMetric_NamesThoseThatThereAre()
    {
        using var run = new TrainingRun(Texts, change: a => a with { EvalSteps = 1, MetricForBestModel = "eval_f2" }, evaluated: Other);

        Should.Throw<TrainingException>(() => run.Run()).Message.ShouldBe("metric_for_best_model: 'f2' is not evaluated. There are loss, mean_token_accuracy, perplexity.");
    }

    [Fact]
    public void Run_RowThatDoesNotFit_SaysWhatToLower()
    {
        using var run = new TrainingRun(Texts);

        Should.Throw<TrainingException>(() => run.Run(beforeMicroBatch: _ => throw new InvalidOperationException("CUDA out of memory."))).Message.ShouldContain("max_length");
    }

    [Fact]
    public void Run_LossSpike_StopsWithStepRowsAndAdvice()
    {
        // Nothing is learnt, and rows differ: some row is above the median of those before it.
        using var run = new TrainingRun(Texts, change: a => a with { MaxSteps = 40, LearningRate = 0, PerDeviceTrainBatchSize = 1, LossSpikeFactor = 1.01 });

        var message = Should.Throw<TrainingException>(() => run.Run()).Message;

        message.ShouldContain("times the median");
        message.ShouldContain("Its rows are lines ");
        message.ShouldContain("Lower learning_rate");
    }

    [Theory]
    [InlineData(double.NaN, 20, true)]
    [InlineData(double.PositiveInfinity, 0, true)]
    [InlineData(25, 20, true)]
    [InlineData(25, 0, false)]
    [InlineData(15, 20, false)]
    public void LossWatch_AfterLossesOfOne_FindsWhatNoRunRecoversFrom(double loss, double factor, bool isFault) =>
        (new LossWatch(factor, [.. Enumerable.Repeat(1.0, 12)]).Fault(loss) is not null).ShouldBe(isFault);

    /// <summary>Where nearly all is learnt, a hard row makes a step many times the median; that is no divergence.</summary>
    [Theory]
    [InlineData(0.2, false)]
    [InlineData(2.1, true)]
    public void LossWatch_AfterTinyLosses_FindsWhatNoRunRecoversFrom(double loss, bool isFault) =>
        (new LossWatch(20, [.. Enumerable.Repeat(0.0025, 12)]).Fault(loss) is not null).ShouldBe(isFault);

    [Fact]
    public void Run_DiskFull_RefusesBeforeAndWarnsBetween()
    {
        using var full = new TrainingRun(Texts);
        Should.Throw<TrainingException>(() => full.Run(freeDisk: _ => 1000)).Message.ShouldContain("too little disk space before the run");

        var asked = 0;
        using var filling = new TrainingRun(Texts, change: a => a with { MaxSteps = 5, SaveSteps = 2 });
        filling.Run(freeDisk: _ => ++asked is 2 ? 0 : long.MaxValue / 2).ShouldBe(TrainingOutcome.Succeeded);
        filling.Messages.ShouldContain("No checkpoint after step 2");
    }

    [Fact]
    public void Run_Neftune_DisturbsTrainingAndNotEvaluation()
    {
        using var plain = new TrainingRun(Texts, change: a => a with { MaxSteps = 1, LearningRate = 0, EvalSteps = 1 }, dropout: 0, evaluated: Other);
        using var noisy = new TrainingRun(Texts, change: a => a with { MaxSteps = 1, LearningRate = 0, EvalSteps = 1, NeftuneNoiseAlpha = 15 }, dropout: 0, evaluated: Other);
        plain.Run();
        noisy.Run();

        noisy.Losses[0].ShouldNotBe(plain.Losses[0]);
        noisy.Losses[0].ShouldBe(plain.Losses[0], 0.2 * plain.Losses[0]);
        noisy.Metrics("valid_loss").Single().ShouldBe(plain.Metrics("valid_loss").Single(), 1e-6);
        noisy.Messages.ShouldContain("neftune_noise_alpha is set");
    }

    [Fact]
    public void Run_ReportToTensorboard_WritesRecordsWithRightChecksums()
    {
        using var run = new TrainingRun(Texts, change: a => a with { MaxSteps = 2, ReportTo = ReportTarget.Tensorboard });
        run.Run();

        var records = Records(File.ReadAllBytes(Directory.GetFiles(Path.Combine(run.Folder, "tensorboard")).ShouldHaveSingleItem()));
        records.Count.ShouldBe(3);
        Encoding.UTF8.GetString(records[0]).ShouldContain("brain.Event:2");
        Encoding.UTF8.GetString(records[2]).ShouldContain("train/learning_rate");
        var loss = records[2].AsSpan();
        var at = loss.IndexOf("train/loss"u8) + "train/loss"u8.Length;
        loss[at].ShouldBe((byte)0x15); // field 2, four bytes
        ((double)BinaryPrimitives.ReadSingleLittleEndian(loss[(at + 1)..])).ShouldBe(run.Losses[1], 1e-6);
    }

    [Fact]
    public void Run_Manifest_SaysWhatRepeatsTheRun()
    {
        using var first = new TrainingRun(Texts);
        first.Run();
        var manifest = TrainingManifest.Read(Path.Combine(first.AdapterFolder, TrainingManifest.FileName));

        using var again = new TrainingRun(Texts);
        manifest.Differences(again.Spec).ShouldBeEmpty();
        again.Run();
        ShouldBeSame(first, again);
        File.ReadAllText(Path.Combine(first.AdapterFolder, TrainingManifest.FileName)).ShouldNotContain(first.Folder);

        using var other = new TrainingRun(Other);
        manifest.Differences(other.Spec).ShouldHaveSingleItem().ShouldContain("sha256");
    }

    private static void ShouldBeSame(TrainingRun one, TrainingRun other) =>
        File.ReadAllBytes(one.Weights).AsSpan().SequenceEqual(File.ReadAllBytes(other.Weights)).ShouldBeTrue("the weights differ");

    private static List<byte[]> Records(byte[] file)
    {
        var records = new List<byte[]>();
        for (var at = 0; at < file.Length;)
        {
            var length = (int)BinaryPrimitives.ReadUInt64LittleEndian(file.AsSpan(at));
            Checksum(file.AsSpan(at, 8)).ShouldBe(BinaryPrimitives.ReadUInt32LittleEndian(file.AsSpan(at + 8)));
            records.Add(file[(at + 12)..(at + 12 + length)]);
            Checksum(records[^1]).ShouldBe(BinaryPrimitives.ReadUInt32LittleEndian(file.AsSpan(at + 12 + length)));
            at += 16 + length;
        }

        return records;
    }

    /// <summary>CRC-32C bit by bit, masked as TensorFlow does.</summary>
    private static uint Checksum(ReadOnlySpan<byte> data)
    {
        var crc = uint.MaxValue;
        foreach (var one in data)
        {
            crc ^= one;
            for (var bit = 0; bit < 8; bit++)
            {
                crc = (crc >> 1) ^ ((crc & 1) * 0x82F63B78);
            }
        }

        crc = ~crc;
        return ((crc >> 15) | (crc << 17)) + 0xA282EAD8;
    }

    /// <summary>Four seconds pass between two looks at it.</summary>
    private sealed class SlowClock : TimeProvider
    {
        private long _looks;

        public override long TimestampFrequency => 1;

        public override long GetTimestamp() => 4 * _looks++;
    }
}
