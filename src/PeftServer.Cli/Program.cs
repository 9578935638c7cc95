using System.CommandLine;

var root = new RootCommand("Fine-tuning as a server: train, store and serve PEFT adapters.");

return await root.Parse(args).InvokeAsync();
