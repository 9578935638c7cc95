using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Cpt;
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
}
