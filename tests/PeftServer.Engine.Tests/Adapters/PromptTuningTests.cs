using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Cpt;
using PeftServer.Engine.Adapters.MultitaskPromptTuning;
using PeftServer.Engine.Adapters.Prompts;
using PeftServer.Engine.Adapters.PromptTuning;
using PeftServer.Engine.Adapters.PTuning;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Tests.Adapters;

/// <summary>How prompts start, and what becomes of those that cannot train on.</summary>
public sealed class PromptTuningTests
{
    [Fact]
    public void Initialize_FromText_TakesItsTokensOverAndOver()
    {
        using var scope = NewDisposeScope();
        using var model = PretrainedModel.Load(Samples.TinyLlama, CPU, ScalarType.Float32);
        using var adapter = new PromptTuningConfig { NumVirtualTokens = 12, PromptTuningInit = PromptTuningInit.Text, PromptTuningInitText = "spam or ham" }.CreateAdapter(model);
        var ids = Samples.Tokenizer.Encode("spam or ham");
        ids.Length.ShouldBeInRange(1, 11);

        adapter.Initialize(1);

        var rows = adapter.State.Single().Weight.Value;
        for (var i = 0; i < 12; i++)
        {
            rows.select(0, i).equal(model.TokenEmbedding!.Weight.Value.select(0, ids[i % ids.Length])).all().item<bool>().ShouldBeTrue($"row {i}");
        }
    }

    [Fact]
    public void Initialize_FromTheVocabulary_TakesRowsOfTheTable()
    {
        using var scope = NewDisposeScope();
        using var model = RandomLlama.Create(CPU, ScalarType.Float32);
        using var adapter = new PromptTuningConfig { NumVirtualTokens = 6, PromptTuningInit = PromptTuningInit.SampleVocab }.CreateAdapter(model);

        adapter.Initialize(1);

        var table = model.TokenEmbedding!.Weight.Value; // [V, width]
        var distances = adapter.State.Single().Weight.Value.unsqueeze(1).Minus(table.unsqueeze(0)).abs().sum(-1); // [P, V]
        distances.min(-1).values.max().item<float>().ShouldBe(0);
        distances.argmin(-1).data<long>().ToArray().Distinct().Count().ShouldBeGreaterThan(1);
    }

    [Fact]
    public void SetTraining_LoadedPromptWithoutItsNetwork_SaysWhyItCannot()
    {
        using var scope = NewDisposeScope();
        using var model = RandomLlama.Create(CPU, ScalarType.Float32);
        var folder = Directory.CreateTempSubdirectory("peftserver-adapter-").FullName;
        using (var adapter = new PTuningConfig { NumVirtualTokens = 4 }.CreateAdapter(model))
        {
            adapter.Initialize(1);
            AdapterFile.Save(adapter, folder, "random-llama");
        }

        using var loaded = AdapterFile.Load(folder, model);
        Directory.Delete(folder, recursive: true);

        Should.Throw<AdapterException>(() => loaded.SetTraining(true)).Message.ShouldContain("cannot train on");
    }

    [Fact]
    public void Train_Cpt_MovesNoTokenFartherThanItMay()
    {
        using var scope = NewDisposeScope();
        using var model = RandomLlama.Create(CPU, ScalarType.Float32);
        using var adapter = new CptConfig { CptTokenIds = [5, 6, 7, 8], CptTokensTypeMask = [1, 2, 3, 4], OptProjectionEpsilon = 0.5, OptProjectionFormatEpsilon = 0.1 }.CreateAdapter(model);
        adapter.Initialize(1);
        using (no_grad())
        {
            adapter.Trainable.Single().Value.Add(ones(4, 64));
        }

        adapter.SetTraining(true);
        adapter.SetTraining(false);

        var moved = adapter.State.Single().Weight.Value.Minus(model.TokenEmbedding!.Weight.Value.narrow(0, 5, 4)).norm(-1, keepdim: false, p: 2).data<float>().ToArray();
        var scale = (float)Math.Sqrt(64 / 2048.0); // the width, for which the settings speak of 2048
        moved.ShouldBe([0.1f * scale, 0.5f * scale, 0.1f * scale, 0], 1e-5);
    }

    [Fact]
    public void Rows_LstmWithDropout_DropsBetweenItsLayersInTrainingAlone()
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        using var model = RandomLlama.Create(CPU, ScalarType.Float32);
        var config = new PTuningConfig { NumVirtualTokens = 4, EncoderDropout = 0.5, EncoderReparameterizationType = PromptEncoderReparameterizationType.Lstm };
        using var adapter = config.CreateAdapter(model);
        using var shallow = (config with { EncoderNumLayers = 1 }).CreateAdapter(model);
        using var mlp = (config with { EncoderReparameterizationType = PromptEncoderReparameterizationType.Mlp }).CreateAdapter(model);
        foreach (var one in new[] { adapter, shallow, mlp })
        {
            one.Initialize(1);
            one.SetTraining(true);
        }

        var saved = adapter.State.Single().Weight.Value;

        Differs(Rows(adapter, null), saved).ShouldBeFalse();
        Differs(Rows(adapter, 3), saved).ShouldBeTrue();
        Differs(Rows(adapter, 3), Rows(adapter, 3)).ShouldBeFalse();
        Differs(Rows(adapter, 3), Rows(adapter, 4)).ShouldBeTrue();
        Differs(Rows(shallow, 3), shallow.State.Single().Weight.Value).ShouldBeFalse();
        Differs(Rows(mlp, 3), mlp.State.Single().Weight.Value).ShouldBeFalse();

        Tensor Rows(Adapter adapter, ulong? seed)
        {
            using var draws = seed is { } given ? new Generator(given) : null;
            return ((PromptAdapter)adapter).RowsFor(0, draws);
        }

        static bool Differs(Tensor a, Tensor b) => a.Minus(b).abs().max().item<float>() > 1e-6f;
    }

    [Theory]
    [InlineData(MultitaskPromptTuningInit.AverageSourceTasks, 1)]
    [InlineData(MultitaskPromptTuningInit.ExactSourceTask, 1)]
    [InlineData(MultitaskPromptTuningInit.OnlySourceShared, 2)]
    public void Initialize_FromAnotherPrompt_TakesWhatItIsToldTo(MultitaskPromptTuningInit start, int tasks)
    {
        using var scope = NewDisposeScope();
        using var model = RandomLlama.Create(CPU, ScalarType.Float32);
        var folder = Directory.CreateTempSubdirectory("peftserver-adapter-").FullName;
        using var source = new MultitaskPromptTuningConfig { NumVirtualTokens = 4, NumTasks = 3, NumRanks = 2 }.CreateAdapter(model);
        source.Initialize(5);
        AdapterFile.Save(source, Path.Combine(folder, "source"), "random-llama");
        var config = new MultitaskPromptTuningConfig
        {
            NumVirtualTokens = 4,
            NumTasks = tasks,
            NumRanks = 2,
            PromptTuningInit = start,
            PromptTuningInitTask = 1,
            PromptTuningInitStateDictPath = "ft:one",
        };
        config.Faults().ShouldBeEmpty();
        config.Experts.ShouldBe([new Expert("source", "prompt_tuning_init_state_dict_path", "ft:one")]);
        using var adapter = config.WithExperts(folder).CreateAdapter(model);

        adapter.Initialize(1);

        Directory.Delete(folder, recursive: true);
        var (from, to) = (source.State.ToDictionary(entry => entry.Key, entry => entry.Weight.Value), adapter.State.ToDictionary(entry => entry.Key, entry => entry.Weight.Value));
        to["prompt_embeddings"].equal(from["prompt_embeddings"]).all().item<bool>().ShouldBeTrue();
        foreach (var own in new[] { "prefix_task_cols", "prefix_task_rows" })
        {
            var wanted = start is MultitaskPromptTuningInit.AverageSourceTasks ? from[own].mean([0]) : from[own].select(0, 1);
            to[own].select(0, 0).Minus(wanted).abs().max().item<float>().ShouldBe(0, start is MultitaskPromptTuningInit.OnlySourceShared ? 1 : 1e-8);
            to[own].equal(from[own].narrow(0, 0, tasks)).all().item<bool>().ShouldBeFalse();
        }
    }

    [Theory]
    [InlineData(1, 3, "prompt_tuning_init_task")]
    [InlineData(2, 1, "prompt_tuning_init_state_dict_path")]
    public void Initialize_FromAPromptThatDoesNotFit_NamesTheField(int ranks, int task, string field)
    {
        using var scope = NewDisposeScope();
        using var model = RandomLlama.Create(CPU, ScalarType.Float32);
        var folder = Directory.CreateTempSubdirectory("peftserver-adapter-").FullName;
        using var source = new MultitaskPromptTuningConfig { NumVirtualTokens = 4, NumTasks = 3 }.CreateAdapter(model);
        source.Initialize(5);
        AdapterFile.Save(source, folder, "random-llama");
        using var adapter = new MultitaskPromptTuningConfig
        {
            NumVirtualTokens = 4,
            NumRanks = ranks,
            PromptTuningInit = MultitaskPromptTuningInit.ExactSourceTask,
            PromptTuningInitTask = task,
            PromptTuningInitStateDictPath = Path.Combine(folder, AdapterFile.WeightsName),
        }.CreateAdapter(model);

        var fault = Should.Throw<AdapterException>(() => adapter.Initialize(1));

        Directory.Delete(folder, recursive: true);
        fault.Message.ShouldStartWith(field);
    }

    [Theory]
    [InlineData("""{ "prompt_tuning_init": "EXACT_SOURCE_TASK" }""", "prompt_tuning_init_state_dict_path")]
    [InlineData("""{ "prompt_tuning_init_state_dict_path": "ft:one" }""", "prompt_tuning_init_state_dict_path")]
    [InlineData("""{ "prompt_tuning_init": "AVERAGE_SOURCE_TASKS", "prompt_tuning_init_state_dict_path": "ft:one", "num_tasks": 2 }""", "num_tasks")]
    public void Faults_StartThatCannotBe_NameTheField(string settings, string field)
    {
        var config = System.Text.Json.JsonSerializer.Deserialize<AdapterConfig>($$"""{ "peft_type": "MULTITASK_PROMPT_TUNING", {{settings[1..]}}""", PeftJson.Options)!;

        config.Faults().ShouldHaveSingleItem().MemberNames.ShouldBe([field]);
    }
}
