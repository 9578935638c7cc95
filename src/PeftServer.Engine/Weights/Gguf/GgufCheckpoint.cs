namespace PeftServer.Engine.Weights.Gguf;

/// <summary>
/// A GGUF file as a model's checkpoint: tensors under Hugging Face's names, and with what llama.cpp changed about them changed back.
/// </summary>
internal sealed class GgufCheckpoint : Checkpoint
{
    private readonly GgufFile _file;
    private readonly GgufConfig _config;
    private readonly Dictionary<string, Func<ScalarType, Tensor>> _tensors = [];

    private GgufCheckpoint(string path)
    {
        Place = path;
        _file = GgufFile.Open(path);
        try
        {
            _config = GgufConfig.Read(_file);
            foreach (var name in _file.Tensors.Keys)
            {
                Assign(name);
            }
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    protected override string Place { get; }

    public override IEnumerable<string> Names => _tensors.Keys;

    public static GgufCheckpoint OpenFile(string path) => new(path);

    public override Tensor Tensor(string name) => Tensor(name, ScalarType.Float32);

    protected override Tensor Tensor(string name, ScalarType wanted)
    {
        using var scope = NewDisposeScope();
        return _tensors[name](wanted).MoveToOuterDisposeScope();
    }

    public override void Dispose() => _file.Dispose();

    private void Assign(string name)
    {
        var architecture = _config.Architecture;
        if (name is "rope_freqs.weight" or "rope_factors_long.weight" or "rope_factors_short.weight")
        {
            return; // the config has read them
        }

        var pieces = name.Split('.');
        if (pieces is ["blk", var layer, "ffn_gate_exps" or "ffn_up_exps" or "ffn_down_exps", ..])
        {
            var experts = $"{architecture.Body}.{architecture.Layers}.{layer}.mlp.experts";
            if (pieces[2] == "ffn_down_exps")
            {
                _tensors[$"{experts}.down_proj"] = wanted => _file.Tensor(name, wanted);
            }
            else
            {
                // The gate and the way up are one tensor in Hugging Face's models.
                _tensors[$"{experts}.gate_up_proj"] =
                    wanted => cat([_file.Tensor($"blk.{layer}.ffn_gate_exps.weight", wanted), _file.Tensor($"blk.{layer}.ffn_up_exps.weight", wanted)], 1);
            }

            return;
        }

        var wanted = _config.NameOf(name) ?? throw new CheckpointException($"{Path.GetFileName(Place)}: the tensor '{name}' is not one of {_config.ArchitectureName}.");
        _tensors[wanted] = wanted => _config.Restore(name, _file.Tensor(name, wanted));
    }
}
