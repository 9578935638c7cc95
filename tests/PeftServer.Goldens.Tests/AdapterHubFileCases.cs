using System.IO.Compression;
using System.Text.Json.Nodes;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.AdapterHub;
using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;
using PeftServer.Engine.Weights.Pickle;

namespace PeftServer.Goldens.Tests;

/// <summary>Folders of the adapters library on models other than the one they were saved from, and old or broken ones.</summary>
public sealed class AdapterHubFileCases : IDisposable
{
    private readonly DisposeScope _scope = NewDisposeScope();
    private readonly string _folder = Directory.CreateTempSubdirectory("peftserver-golden-").FullName;

    public void Dispose()
    {
        _scope.Dispose();
        Directory.Delete(_folder, recursive: true);
    }

    [Fact]
    public void Load_AdapterOfABareModel_FitsOneWithAHead()
    {
        using var model = Model("bert_cls");
        using var adapter = Load("seq_bn__bert", "init", model);

        adapter.State.Where(entry => entry.Key.Contains(".adapters.", StringComparison.Ordinal)).ShouldAllBe(entry => entry.Key.StartsWith("bert.encoder", StringComparison.Ordinal));
    }

    [Fact]
    public void Load_AdapterOfAModelWithAHead_FitsABareOne()
    {
        using var model = Model("bert");
        using var adapter = Load("seq_bn__bert_cls", "trained", model);

        adapter.Head.ShouldBeNull(); // the model has none
        adapter.State.ShouldAllBe(entry => entry.Key.StartsWith("encoder.layer", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("seq_bn__bert_cls")]
    [InlineData("lora__bert_cls")]
    public void Load_BothFormsInOneFolder_SaysTheSame(string name)
    {
        using var model = Model("bert_cls");
        using var safe = Load(name, "trained", model);
        Copy(PathOf(name, "trained"));
        File.Delete(Path.Combine(_folder, AdapterHubFile.WeightsName));
        File.Delete(Path.Combine(_folder, AdapterHubFile.HeadWeightsName));
        using var pickled = (HubAdapter)AdapterFile.Load(_folder, model);

        var weights = pickled.State.ToDictionary(entry => entry.Key, entry => entry.Weight.Value);
        safe.State.ShouldAllBe(entry => Golden.Error(weights[entry.Key], entry.Weight.Value) == 0);
    }

    [Fact]
    public void Save_AsPickle_IsThePickleOfTorchSave()
    {
        using var model = Model("bert_cls");
        var theirs = PathOf("lora__bert_cls", "init");
        using var adapter = Load("lora__bert_cls", "init", model);

        AdapterHubFile.Save(adapter, _folder, "bert_cls", asPickle: true);

        File.Exists(Path.Combine(_folder, AdapterHubFile.WeightsName)).ShouldBeFalse();
        using var again = (HubAdapter)AdapterFile.Load(_folder, model);
        var weights = again.State.ToDictionary(entry => entry.Key, entry => entry.Weight.Value);
        adapter.State.ShouldAllBe(entry => Golden.Error(weights[entry.Key], entry.Weight.Value) == 0);
        foreach (var name in new[] { AdapterHubFile.OldWeightsName, AdapterHubFile.OldHeadWeightsName })
        {
            using var pickle = PickleCheckpoint.OpenFile(Path.Combine(theirs, name));
            var tensors = pickle.Names.ToDictionary(key => key, pickle.Tensor);
            using var zip = ZipFile.OpenRead(Path.Combine(theirs, name));
            using var stream = zip.Entries.Single(entry => entry.Name == "data.pkl").Open();
            using var bytes = new MemoryStream();
            stream.CopyTo(bytes);
            StateDictWriter.Program(tensors).ShouldBe(bytes.ToArray(), name);
        }
    }

    [Fact]
    public void Load_OldNamesOfWeights_AreToday()
    {
        using var model = Model("bert_cls");
        Copy(PathOf("seq_bn__bert_cls", "trained"));
        File.Delete(Path.Combine(_folder, AdapterHubFile.OldWeightsName));
        var tensors = AdapterHubFile.Tensors(_folder, AdapterHubFile.WeightsName, "");
        var old = tensors.ToDictionary(entry => entry.Key.Replace(".output.adapters.", ".output.layer_text_task_adapters.", StringComparison.Ordinal), entry => entry.Value.clone());
        SafetensorsWriter.Write(Path.Combine(_folder, AdapterHubFile.WeightsName), old);

        using var adapter = (HubAdapter)AdapterFile.Load(_folder, model);

        adapter.Name.ShouldBe("task");
    }

    [Fact]
    public void Load_AdapterOfAnotherArchitecture_ThrowsNamingBoth()
    {
        using var model = Model("gpt2");

        var thrown = Should.Throw<CheckpointException>(() => Load("seq_bn__bert_cls", "trained", model));

        thrown.Message.ShouldContain("model_type is 'bert', but this model is gpt2");
    }

    [Theory]
    [InlineData("hidden_size", "768", "hidden_size is 768")]
    [InlineData("config.reduction_factor", "8", "adapter_down.0.")]
    [InlineData("config.mh_adapter", "true", "missing: encoder.layer.0.attention.output.adapters")]
    [InlineData("config.inv_adapter", "\"glow\"", "inv_adapter: 'glow' is not supported")]
    [InlineData("config.scaling", "\"much\"", "scaling: is \"much\"")]
    public void Load_ConfigThatDoesNotFit_ThrowsNamingIt(string field, string value, string expected)
    {
        using var model = Model("bert_cls");
        Copy(PathOf("seq_bn__bert_cls", "trained"));
        var path = Path.Combine(_folder, AdapterFile.ConfigName);
        var config = JsonNode.Parse(File.ReadAllText(path))!.AsObject();
        var inner = field.StartsWith("config.", StringComparison.Ordinal) ? config["config"]!.AsObject() : config;
        inner[field.Replace("config.", "", StringComparison.Ordinal)] = JsonNode.Parse(value);
        File.WriteAllText(path, config.ToJsonString());

        Should.Throw<CheckpointException>(() => AdapterFile.Load(_folder, model)).Message.ShouldContain(expected);
    }

    private static string PathOf(string name, string part)
    {
        Assert.SkipUnless(GoldenFolder.Takes("adapterhub", name), "The case is not listed.");
        return GoldenFolder.PathOf("adapterhub", name, part);
    }

    private static HubAdapter Load(string name, string part, PretrainedModel model) => (HubAdapter)AdapterFile.Load(PathOf(name, part), model);

    private static PretrainedModel Model(string name) => PretrainedModel.Load(GoldenFolder.PathOf("models", name), CPU, ScalarType.Float32);

    private void Copy(string from)
    {
        foreach (var file in Directory.GetFiles(from))
        {
            File.Copy(file, Path.Combine(_folder, Path.GetFileName(file)));
        }
    }
}
